#pragma once

#include <vector>

#include "lib/engine/vllm/load/load.h"

namespace moelora::vllm {

// What vLLM does otherwise than the adapter means, without a word: tensors that no module takes,
// halves of pairs, shapes that are not the base's, columns read in another order.
std::vector<Fault> silent_faults(const Server& server, const Adapter& adapter,
                                 const std::vector<TensorState>& states);

// Why no module takes a tensor.
enum class Unused : uint8_t {
  router,      // of a class that does not wrap its router
  root,        // names of another wrapper: "model.language_model.layers."
  layer,       // beyond the last one
  dense,       // experts on a dense layer
  base_layer,  // the inner pair of stacked experts without the outer one
  form,        // a name below the experts that this wrapper does not look for
  moe_path,    // experts under another path: "mlp.experts" for "block_sparse_moe.experts"
  module,      // no module of this name
};
Unused why_unused(const Server& server, const std::string& module);
const Cause* cause_of(Unused why);
std::string text_of(Unused why, const Server& server, const std::string& module);

}  // namespace moelora::vllm
