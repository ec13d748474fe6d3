#pragma once

#include <vector>

#include "lib/engine/vllm/load.h"

namespace moelora::vllm {

// What vLLM does otherwise than the adapter means, without a word: tensors that no module takes,
// halves of pairs, shapes that are not the base's, columns read in another order.
std::vector<Fault> silent_faults(const Server& server, const Adapter& adapter,
                                 const std::vector<TensorState>& states);

// Why no module takes this tensor: the rule's name and the reason for people.
struct Unused {
  std::string_view cause;
  std::string why;
};
Unused why_unused(const Server& server, const std::string& module);

}  // namespace moelora::vllm
