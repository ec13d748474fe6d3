#pragma once

#include <vector>

#include "lib/engine/vllm/load/load.h"

namespace moelora::vllm {

// Where what the config says a tensor means is not how vLLM reads it: rank_pattern, alpha_pattern
// and rsLoRA (wrong scale), the number of experts and the order of a stacked lora_B (wrong values).
// Quiet on a config that this tool cannot read; the server's own complaint says it.
std::vector<Fault> scale_faults(const Server& server, const Adapter& adapter,
                                const std::vector<TensorState>& states);

}  // namespace moelora::vllm
