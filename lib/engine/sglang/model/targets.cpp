#include "lib/engine/sglang/model/targets.h"

#include <fmt/core.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "lib/base/dotted_path.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

using Mapping = std::pair<std::string_view, std::string_view>;

constexpr Mapping kMappings[] = {
    {"q_proj", "qkv_proj"},         {"k_proj", "qkv_proj"},
    {"v_proj", "qkv_proj"},         {"gate_proj", "gate_up_proj"},
    {"up_proj", "gate_up_proj"},    {"vocab_emb", "embed_tokens"},
    {"embeddings", "embed_tokens"}, {"word_embeddings", "embed_tokens"},
    {"output", "lm_head"},          {"unembed_tokens", "lm_head"}};
constexpr Mapping kLaterMappings[] = {{"q_a_proj", "fused_qkv_a_proj_with_mqa"},
                                      {"kv_a_proj_with_mqa", "fused_qkv_a_proj_with_mqa"}};
constexpr Mapping kIndexerMappings[] = {
    {"wq_b", "indexer.wq_b"}, {"wk", "indexer.wk"}, {"weights_proj", "indexer.weights_proj"}};

// What the pool knows how to hold.
constexpr std::string_view kKnown[] = {"qkv_proj",
                                       "qkvr",
                                       "o_proj",
                                       "wo_ud",
                                       "out_proj",
                                       "in_proj",
                                       "in_proj_qkvz",
                                       "up_proj",
                                       "gate_up_proj",
                                       "down_proj",
                                       "lm_head",
                                       "embed_tokens",
                                       "fused_qkv_a_proj_with_mqa",
                                       "fc1_latent_proj",
                                       "fc2_latent_proj"};

bool is_known(std::string_view target, const Features& features) {
  if (target == "q_b_proj" || target == "kv_b_proj") return features.second_mla_layers;
  return std::find(std::begin(kKnown), std::end(kKnown), target) != std::end(kKnown);
}

std::string_view name_of(const ClassModule& module) {
  if (module.kind == LayerKind::embedding) return "embed_tokens";
  if (module.kind == LayerKind::lm_head) return "lm_head";
  return module.leaf();
}

// "gate_up_proj", or "indexer.wq_b" of a target that names the parent too.
bool is_target(const ClassModule& module, const NameSet& targets) {
  if (targets.count(module.leaf()) != 0) return true;
  const std::string_view name = module.name, above = stem_of(parent_of(name));
  return targets.count(name.substr(above.size())) != 0;
}

// should_apply_lora() of the class: what it leaves out is not wrapped, and nothing reads its
// buffers.
bool may_wrap(const ModelClass& model, const Features& features, const ClassModule& module) {
  const auto& chosen = model.facts.lora_modules;
  return !features.class_chooses || chosen.empty() ||
         std::find(chosen.begin(), chosen.end(), below_layer(module.name)) != chosen.end();
}

bool finds_lm_head(const ModelClass& model) {
  const LmHead where = model.facts.lm_head;
  return where == LmHead::own || (where == LmHead::within && !model.tied);
}

constexpr std::pair<std::string_view, int64_t> kStackedFactors[] = {
    {"qkv_proj", 3},
    {"in_proj_qkvz", 4},
    {"gate_up_proj", 2},
    {"in_proj", 2},
    {"fused_qkv_a_proj_with_mqa", 2}};

HiddenDim no_attribute(const HfConfig& config, std::string_view attribute) {
  return {0, 0, "AttributeError",
          fmt::format("'{}' object has no attribute '{}'", config.type, attribute)};
}

// The width of a dense MLP, or of the shared experts where first_k_dense_replace sets them apart.
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
            config.heads * (config.qk_nope.value_or(0) + config.qk_rope.value_or(0))};
  }
  if (!config.kv_lora_rank) return no_attribute(config, "kv_lora_rank");
  if (module == "kv_b_proj")
    return {*config.kv_lora_rank, config.heads * (config.qk_nope.value_or(0) + config.v_head_dim)};
  return {config.hidden,
          config.q_lora_rank.value_or(0) + *config.kv_lora_rank + config.qk_rope.value_or(0)};
}

bool is_mla(const Features& features, std::string_view module) {
  if (module == "fused_qkv_a_proj_with_mqa") return features.replicated_layers;
  return features.second_mla_layers && (module == "q_b_proj" || module == "kv_b_proj");
}

// As wide as DSA's indexer is, which the config says as well.
HiddenDim indexer_dim(const ModelClass& model, std::string_view module) {
  for (const ClassModule& one : model.modules)
    if (one.name.ends_with(module)) return {one.in, one.rows()};
  return no_attribute(model.config, "index_n_heads");
}

HiddenDim default_dim(const HfConfig& config, const Features& features, std::string_view module,
                      int layer) {
  if (module == "qkv_proj")
    return {config.hidden, config.head_dim * (config.heads + 2 * config.kv_heads)};
  if (module == "o_proj") return {config.v_head_dim * config.heads, config.hidden};
  if (module == "gate_up_proj") return {config.hidden, 2 * dense_width(config, layer)};
  if (module == "down_proj") return {dense_width(config, layer), config.hidden};
  if (is_mla(features, module)) return mla_dim(config, module);
  return {0, 0, "NotImplementedError",
          fmt::format("get_hidden_dim not implemented for {}", module)};
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

std::string normalised_target(std::string_view name, const Features& features) {
  const std::string_view last = leaf_of(name);
  for (const auto& [from, to] : kMappings)
    if (from == last) return std::string(to);
  if (features.replicated_layers)
    for (const auto& [from, to] : kLaterMappings)
      if (from == last) return std::string(to);
  if (features.indexer)
    for (const auto& [from, to] : kIndexerMappings)
      if (from == last) return std::string(to);
  return std::string(last);
}

NameSet detect_targets(const ModelClass& model, const Features& features) {
  NameSet out;
  for (const ClassModule& module : model.modules) {
    if (module.kind == LayerKind::foreign) continue;
    if (module.kind == LayerKind::fused_moe) {
      out.insert({"gate_up_proj", "down_proj"});
      continue;
    }
    const std::string target = normalised_target(name_of(module), features);
    if (is_indexer(target) && contains(module.name, target)) out.insert(target);
    if (is_known(target, features)) out.insert(target);
  }
  return out;
}

bool is_indexer(std::string_view target) { return target.starts_with("indexer."); }

TargetMatcher::TargetMatcher(const NameSet& targets) : targets_(targets.begin(), targets.end()) {
  std::stable_sort(targets_.begin(), targets_.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
}

const std::string* TargetMatcher::find(std::string_view name) const {
  for (const std::string& target : targets_)
    if (contains(name, target)) return &target;
  return nullptr;
}

Wrapping wrap_modules(const ModelClass& model, const Features& features, const NameSet& targets) {
  Wrapping out;
  out.layers.resize(static_cast<size_t>(model.layers()));
  const TargetMatcher matcher(targets);
  const bool both = targets.count("gate_up_proj") != 0 && targets.count("down_proj") != 0;
  for (const ClassModule& module : model.modules) {
    if (module.kind == LayerKind::embedding) out.embed_tokens = targets.count("embed_tokens") != 0;
    if (module.layer < 0 || !may_wrap(model, features, module)) continue;
    auto& layer = out.layers[static_cast<size_t>(module.layer)];
    if (module.kind == LayerKind::fused_moe) {
      if (!both) continue;
      for (const char* buffer : {"gate_up_proj_moe", "down_proj_moe"})
        layer.push_back({&module, buffer});
    } else if (is_target(module, targets)) {
      const bool replicated = module.kind == LayerKind::replicated;
      if (module.kind == LayerKind::foreign || (replicated && !features.replicated_layers))
        out.unsupported.push_back(&module);
      layer.push_back({&module, *matcher.find(module.name)});
    }
  }
  out.lm_head = targets.count("lm_head") != 0 && finds_lm_head(model);
  return out;
}

HiddenDim hidden_dim(const ModelClass& model, const Features& features, std::string_view module,
                     int layer) {
  const HfConfig& config = model.config;
  if (module == "gate_up_proj_moe")
    return {model.expert_in, (model.gated ? 2 : 1) * model.intermediate};
  if (module == "down_proj_moe") return {model.intermediate, model.expert_in};
  if (module == "embed_tokens") return {config.vocab, config.hidden};
  if (module == "lm_head") return {config.hidden, config.vocab};
  if (model.facts.own_hidden_dim)
    if (const ClassModule* own = find_module(model, module, layer)) return {own->in, own->rows()};
  if (features.indexer && is_indexer(module)) return indexer_dim(model, module);
  return default_dim(config, features, module, layer);
}

int64_t stacked_multiply(const ModelClass& model, std::string_view module) {
  if (module == "gate_up_proj_moe") return model.gated ? 2 : 1;
  for (const auto& [stacked, factors] : kStackedFactors)
    if (stacked == module) return factors;
  return 1;
}

}  // namespace moelora::sglang
