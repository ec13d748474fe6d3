#include "lib/adapter/foreign/modules_by_layer.h"

#include <fmt/core.h>

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/model/attention_heads.h"
#include "lib/model/base_model.h"

namespace moelora {

ModulesByLayer::ModulesByLayer(const ModelSpec& spec) {
  for (const LinearSpec& linear : spec.linears) {
    const std::string_view path =
        linear.layer >= 0 ? below_layer(linear.memory) : leaf_of(linear.memory);
    by_layer_[linear.layer].emplace(path, &linear);
  }
}

const LinearSpec* ModulesByLayer::find(int layer, std::string_view path) const {
  const auto paths = by_layer_.find(layer);
  if (paths == by_layer_.end()) return nullptr;
  const auto found = paths->second.find(path);
  return found == paths->second.end() ? nullptr : found->second;
}

Tensor halves_of_rotary_pairs(const std::string& name, const Tensor& b, const ModelSpec& spec,
                              bool keys) {
  const AttentionHeads known = attention_heads(spec);
  const int64_t heads = keys ? known.kv_heads : known.heads, head_dim = known.head_dim;
  if (b.rank() != 2 || b.dim(0) != heads * head_dim || head_dim % 2 != 0)
    throw Error(name,
                fmt::format("has shape {}, expected two dims and {} rows: {} heads of {}",
                            to_string(b.shape()), heads * head_dim, heads, head_dim),
                check_base());
  return b.reshape({heads, head_dim / 2, 2, b.dim(1)}).permute({0, 2, 1, 3}).reshape(b.shape());
}

}  // namespace moelora
