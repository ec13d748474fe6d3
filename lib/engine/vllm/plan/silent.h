#pragma once

#include <vector>

#include "lib/engine/vllm/load/load.h"

namespace moelora::vllm {

// What vLLM does otherwise than the adapter means, without a word: tensors that no module takes,
// halves of pairs, shapes that are not the base's, columns read in another order.
std::vector<LoadEvent> silent_events(const Server& server, const Adapter& adapter,
                                     const std::vector<TensorState>& states);

// Where what the config says a tensor means is not how vLLM reads it: rank_pattern, alpha_pattern
// and rsLoRA (wrong scale), the number of experts and the order of a stacked lora_B (wrong values).
// Quiet on a config that this tool cannot read; the server's own complaint says it.
std::vector<LoadEvent> scale_events(const Server& server, const Adapter& adapter,
                                    const std::vector<TensorState>& states);

}  // namespace moelora::vllm
