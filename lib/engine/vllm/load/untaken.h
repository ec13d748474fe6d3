#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/engine/cause.h"
#include "lib/engine/vllm/server/server.h"

// Why vLLM does not take a tensor by its name: causes and words for people.
namespace moelora::vllm {

// Of a tensor's name that the parser refuses.
const Cause* cause_of_unparsable(std::string_view name);

// Of a module, "model.layers.0.mlp.experts.0.w1", that the name gate refuses.
const Cause* cause_of_module(const Server& server, std::string_view module);

// "GptOssForCausalLM takes LoRA on k_proj o_proj .., experts stacked as ..".
std::string what_is_accepted(const Server& server);

// Why no module takes a tensor whose name is accepted.
enum class Unused : uint8_t {
  router,      // of a class that does not wrap its router
  root,        // names of another wrapper: "model.language_model.layers."
  layer,       // beyond the last one
  dense,       // experts on a dense layer
  base_layer,  // the inner pair of stacked experts without the outer one
  form,        // a name below the experts that this wrapper does not look for
  moe_path,    // experts under another path: "mlp.experts" for "block_sparse_moe.experts"
  no_experts,  // experts, in a version without LoRA on them
  module,      // no module of this name
};
Unused why_unused(const Server& server, const std::string& module);
const Cause* cause_of(Unused why);
std::string text_of(Unused why, const Server& server, const std::string& module);

}  // namespace moelora::vllm
