#include "lib/engine/sglang/model/targets.h"

#include <algorithm>
#include <array>

#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

struct Mapping {
  std::string_view from, to;
};
constexpr std::array<Mapping, 10> kMappings = {{{"q_proj", "qkv_proj"},
                                                {"k_proj", "qkv_proj"},
                                                {"v_proj", "qkv_proj"},
                                                {"gate_proj", "gate_up_proj"},
                                                {"up_proj", "gate_up_proj"},
                                                {"vocab_emb", "embed_tokens"},
                                                {"embeddings", "embed_tokens"},
                                                {"word_embeddings", "embed_tokens"},
                                                {"output", "lm_head"},
                                                {"unembed_tokens", "lm_head"}}};
constexpr std::array<Mapping, 5> kLaterMappings = {{
    {"q_a_proj", "fused_qkv_a_proj_with_mqa"},
    {"kv_a_proj_with_mqa", "fused_qkv_a_proj_with_mqa"},
    {"wq_b", "indexer.wq_b"},
    {"wk", "indexer.wk"},
    {"weights_proj", "indexer.weights_proj"},
}};

constexpr std::array<std::string_view, 16> kKnown = {"qkv_proj",
                                                     "qkvr",
                                                     "o_proj",
                                                     "wo_ud",
                                                     "out_proj",
                                                     "in_proj",
                                                     "in_proj_qkvz",
                                                     "up_proj",
                                                     "gate_up_proj",
                                                     "down_proj",
                                                     "fc1_latent_proj",
                                                     "fc2_latent_proj",
                                                     "embed_tokens",
                                                     "lm_head",
                                                     "fused_qkv_a_proj_with_mqa",
                                                     ""};

bool is_known(std::string_view target, const Features& features) {
  if (target == "q_b_proj" || target == "kv_b_proj") return features.second_mla_layers;
  return !target.empty() && std::find(kKnown.begin(), kKnown.end(), target) != kKnown.end();
}

std::string_view name_of(const ClassModule& module) {
  if (module.kind == LayerKind::embedding) return "embed_tokens";
  if (module.kind == LayerKind::lm_head) return "lm_head";
  return module.leaf();
}

}  // namespace

std::string normalised_target(std::string_view name, const Features& features) {
  const std::string_view last = name.substr(name.rfind('.') + 1);
  for (const Mapping& mapping : kMappings)
    if (mapping.from == last) return std::string(mapping.to);
  if (features.replicated_layers)
    for (const Mapping& mapping : kLaterMappings)
      if (mapping.from == last) return std::string(mapping.to);
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
    if (is_known(target, features)) out.insert(target);
  }
  return out;
}

TargetMatcher::TargetMatcher(const NameSet& targets) : targets_(targets.begin(), targets.end()) {
  std::stable_sort(targets_.begin(), targets_.end(),
                   [](const auto& a, const auto& b) { return a.size() > b.size(); });
}

int TargetMatcher::find(std::string_view name) const {
  for (size_t i = 0; i < targets_.size(); ++i)
    if (contains(name, targets_[i])) return static_cast<int>(i);
  return -1;
}

}  // namespace moelora::sglang
