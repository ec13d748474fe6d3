#pragma once

#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <utility>

#include "lib/base/tensor.h"
#include "lib/model/model_spec.h"

namespace moelora {

// The modules of a base model by layer and path below it, for dialects whose names know nothing of
// what stands in front of "layers": (3, "self_attn.q_proj"), (-1, "lm_head").
class ModulesByLayer {
 public:
  explicit ModulesByLayer(const ModelSpec& spec);

  // Null where the base model has none.
  const LinearSpec* find(int layer, std::string_view path) const;

 private:
  std::map<int, std::map<std::string, const LinearSpec*, std::less<>>> by_layer_;
};

// The rows of lora_B of q or k in Hugging Face's order, in which a head's rotary pairs lie half a
// head apart, from the order of Meta's and Mistral's code, in which they lie side by side. `keys`:
// of k, which may have fewer heads. Throws Error where there are other rows than those of the
// heads, or the family's file does not say them (lib/model/attention_heads.h).
Tensor halves_of_rotary_pairs(const std::string& name, const Tensor& b, const ModelSpec& spec,
                              bool keys);

}  // namespace moelora
