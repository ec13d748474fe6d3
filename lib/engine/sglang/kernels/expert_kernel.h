#pragma once

#include <string_view>

#include "lib/engine/engine.h"
#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/model/model_class.h"
#include "lib/engine/sglang/server.h"

namespace moelora::sglang {

// What the kernels of routed experts make of the buffers (lora/lora_moe_runners.py,
// kernels/ops/moe/virtual_experts.py; measured on a GPU by the oracle).
struct ExpertKernel {
  enum class GateUp : uint8_t {
    apart,   // rows [0, R) of A with gate's rows of B, rows [R, 2R) with up's
    halves,  // the same with the first and the second half of B, which is interleaved (gpt-oss)
    gate_a_only,  // rows [0, R) of A with all of B: virtual experts contract R columns, not 2R
  };
  GateUp gate_up = GateUp::apart;
  bool has_lora = true;         // false: this version's backend computes no expert LoRA
  bool sums_down = true;        // false: down's delta is written where nothing sums it
  bool weights_outputs = true;  // false: the base weights the experts' input, LoRA down's output
  bool up_at_max_rank = false;  // up's rows of A are held at r and read at R
};

// `r` is the adapter's rank, `max_rank` the pool's.
ExpertKernel expert_kernel(const ModelClass& model, const Features& features,
                           const ServerOptions& options, int64_t r, int64_t max_rank);

// What options, quantisation and the class do to the experts of adapter `index`, after use():
// kernels that are not there, and those that compute something else.
void check_kernels(Server& server, size_t index, const ServerOptions& options,
                   const Json& base_config);

}  // namespace moelora::sglang
