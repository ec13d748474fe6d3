#include "lib/engine/sglang/model/hidden_dim.h"

#include <fmt/format.h>

#include <array>

namespace moelora::sglang {
namespace {

struct Stacked {
  std::string_view module;
  int64_t factors;
};
constexpr std::array<Stacked, 5> kStacked = {{{"qkv_proj", 3},
                                              {"in_proj_qkvz", 4},
                                              {"gate_up_proj", 2},
                                              {"in_proj", 2},
                                              {"fused_qkv_a_proj_with_mqa", 2}}};

HiddenDim not_implemented(std::string_view module) {
  return {0, 0, "NotImplementedError",
          fmt::format("get_hidden_dim not implemented for {}", module)};
}

HiddenDim no_attribute(const HfConfig& config, std::string_view attribute) {
  return {0, 0, "AttributeError",
          fmt::format("'{}' object has no attribute '{}'", config.type, attribute)};
}

// The width of a dense MLP, or of the shared experts where first_k_dense_replace tells them apart.
int64_t dense_width(const HfConfig& config, int layer) {
  const bool routed =
      config.first_dense && layer >= *config.first_dense && layer % config.moe_layer_freq == 0;
  return routed && config.moe_intermediate && config.n_shared_experts
             ? *config.moe_intermediate * *config.n_shared_experts
             : config.intermediate;
}

HiddenDim mla_dim(const HfConfig& config, std::string_view module) {
  if (module == "q_b_proj") {
    if (!config.q_lora_rank) return no_attribute(config, "q_lora_rank");
    return {*config.q_lora_rank,
            config.heads * (config.qk_nope.value_or(0) + config.qk_rope.value_or(0)),
            {},
            {}};
  }
  if (!config.kv_lora_rank) return no_attribute(config, "kv_lora_rank");
  if (module == "kv_b_proj")
    return {*config.kv_lora_rank,
            config.heads * (config.qk_nope.value_or(0) + config.v_head_dim),
            {},
            {}};
  return {config.hidden,
          config.q_lora_rank.value_or(0) + *config.kv_lora_rank + config.qk_rope.value_or(0),
          {},
          {}};
}

bool is_mla(const Features& features, std::string_view module) {
  if (module == "fused_qkv_a_proj_with_mqa") return features.replicated_layers;
  return features.second_mla_layers && (module == "q_b_proj" || module == "kv_b_proj");
}

HiddenDim default_dim(const HfConfig& config, const Features& features, std::string_view module,
                      int layer) {
  if (module == "qkv_proj")
    return {config.hidden, config.head_dim * (config.heads + 2 * config.kv_heads), {}, {}};
  if (module == "o_proj") return {config.v_head_dim * config.heads, config.hidden, {}, {}};
  if (module == "gate_up_proj") return {config.hidden, 2 * dense_width(config, layer), {}, {}};
  if (module == "down_proj") return {dense_width(config, layer), config.hidden, {}, {}};
  if (is_mla(features, module)) return mla_dim(config, module);
  return not_implemented(module);
}

// Of the layer itself, else of the first that has such a module.
const ClassModule* find_module(const ModelClass& model, std::string_view leaf, int layer) {
  const ClassModule* first = nullptr;
  for (const ClassModule& module : model.modules) {
    if (module.leaf() != leaf) continue;
    if (module.layer == layer) return &module;
    if (first == nullptr) first = &module;
  }
  return first;
}

}  // namespace

HiddenDim hidden_dim(const ModelClass& model, const Features& features, std::string_view module,
                     int layer) {
  const HfConfig& config = model.config;
  if (module == "gate_up_proj_moe")
    return {model.expert_in, (model.gated ? 2 : 1) * model.intermediate, {}, {}};
  if (module == "down_proj_moe") return {model.intermediate, model.expert_in, {}, {}};
  if (module == "embed_tokens") return {config.vocab, config.hidden, {}, {}};
  if (module == "lm_head") return {config.hidden, config.vocab, {}, {}};
  if (model.own_dims)
    if (const ClassModule* own = find_module(model, module, layer))
      return {own->in, own->rows(), {}, {}};
  return default_dim(config, features, module, layer);
}

int64_t stacked_multiply(const ModelClass& model, std::string_view module) {
  if (module == "gate_up_proj_moe") return model.gated ? 2 : 1;
  for (const Stacked& stacked : kStacked)
    if (stacked.module == module) return stacked.factors;
  return 1;
}

std::vector<int64_t> part_rows(const ModelClass& model, std::string_view module, int64_t out) {
  const HfConfig& config = model.config;
  if (module == "qkv_proj") {
    const int64_t kv = config.head_dim * config.kv_heads;
    return {out - 2 * kv, kv, kv};
  }
  if (module == "fused_qkv_a_proj_with_mqa") {
    const int64_t q = config.q_lora_rank.value_or(0);
    return {q, out - q};
  }
  if (stacked_multiply(model, module) == 2) return {out / 2, out - out / 2};
  return {out};
}

}  // namespace moelora::sglang
