#pragma once

#include <cstdint>

#include "lib/engine/python_text.h"
#include "lib/engine/served_adapter.h"
#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/load/cpu_adapter.h"
#include "lib/engine/sglang/model/model_class.h"

namespace moelora::sglang {

// What the server holds adapters against when one is loaded after the start.
struct PoolLimits {
  int64_t max_lora_rank = 0;
  NameSet targets;
};

// LoRAConfig and validate_new_adapter(): the config's keys, added tokens, DoRA, and, once there is
// a pool, rank and targets. `limits` is null at start-up.
CpuAdapter read_config(const ServedAdapter& served, const ModelClass& model,
                       const Features& features, const PoolLimits* limits);

// What target_modules must be at later steps. False: refused.
// get_normalized_target_modules(), which runs for every tensor: something to iterate over.
bool check_iterable_targets(CpuAdapter& adapter);
// init_lora_shapes(): a list to infer anything from, and within the command line's where that names
// some.
bool check_listed_targets(CpuAdapter& adapter);
bool check_targets_within(CpuAdapter& adapter, const NameSet& targets);

}  // namespace moelora::sglang
