#pragma once

#include <string_view>
#include <vector>

#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/load/cpu_adapter.h"
#include "lib/engine/sglang/model/model_class.h"
#include "lib/engine/sglang/model/wrapped.h"
#include "lib/engine/sglang/pool/pool.h"

namespace moelora::sglang {

// What ends the start of a server, step by step.

// Whether this adapter ends it at a step that is about the pool as a whole, so that no adapter can
// be judged against it.
bool ends_the_start(const CpuAdapter& adapter);

// The model itself: heads, widths and experts that do not split over tp and ep ranks.
std::vector<PlanEvent> check_divisibility(const ModelClass& model, int64_t tp, int64_t ep);

// init_lora_shapes(): target_modules must be a list to infer anything from, and within the command
// line's where that names some. False: refused.
bool check_target_list(CpuAdapter& adapter);
bool check_within(CpuAdapter& adapter, const NameSet& targets);

CpuAdapter::Raise unsupported_module(const ClassModule& module);
CpuAdapter::Raise pool_error(const PoolError& error);

// update_lora_info(): every wrapped module is handed its buffer.
struct HandOverError {
  std::string target;
  CpuAdapter::Raise raise;
};
std::vector<HandOverError> check_hand_over(const ModelClass& model, const Wrapping& wrapping,
                                           const Pool& pool);

// The tensors of an adapter that belong to a (normalised) target.
std::vector<int32_t> sources_of_target(const CpuAdapter& adapter, std::string_view target,
                                       const Features& features);

}  // namespace moelora::sglang
