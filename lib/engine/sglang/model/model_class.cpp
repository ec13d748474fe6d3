#include "lib/engine/sglang/model/model_class.h"

#include <algorithm>
#include <array>
#include <map>
#include <numeric>

namespace moelora::sglang {
namespace {

constexpr std::string_view kTorchLinear = "torch.nn.modules.linear.Linear";

struct ForeignRouter {
  std::string_view family, python_type;
};
constexpr std::array<ForeignRouter, 5> kForeignRouters = {{
    {"deepseek_v2", "sglang.srt.models.deepseek_v2.MoEGate"},
    {"deepseek_v3", "sglang.srt.models.deepseek_v2.MoEGate"},
    {"glm4_moe", "sglang.srt.models.glm4_moe.Glm4MoeGate"},
    {"ernie4_5_moe", "sglang.srt.models.ernie4.MoEGate"},
    {"dots1", "sglang.srt.models.deepseek_v2.MoEGate"},
}};

// Parts that SGLang holds as one module, in its order.
struct Fusion {
  std::string_view fused;
  LayerKind kind;
  std::array<std::string_view, 3> parts;
};
constexpr std::string_view kGdn = "in_proj_qkvz";  // Qwen3.5's linear attention
constexpr std::array<Fusion, 4> kFusions = {{
    {"qkv_proj", LayerKind::qkv, {"q_proj", "k_proj", "v_proj"}},
    {"fused_qkv_a_proj_with_mqa", LayerKind::replicated, {"q_a_proj", "kv_a_proj_with_mqa", ""}},
    {"gate_up_proj", LayerKind::merged, {"gate_proj", "up_proj", ""}},
    {kGdn, LayerKind::merged, {"in_proj_qkv", "in_proj_z", ""}},
}};

std::string_view leaf_of_path(std::string_view path) { return path.substr(path.rfind('.') + 1); }

std::string parent_of(const std::string& path) {
  const size_t dot = path.rfind('.');
  return dot == std::string::npos ? "" : path.substr(0, dot + 1);
}

LayerKind kind_of(const LinearSpec& linear, std::string_view leaf) {
  if (linear.role == Role::embedding) return LayerKind::embedding;
  if (linear.role == Role::lm_head) return LayerKind::lm_head;
  if (leaf == "o_proj" || leaf == "out_proj" || leaf == "down_proj") return LayerKind::row;
  if (leaf == "kv_a_proj_with_mqa" || linear.role == Role::router) return LayerKind::replicated;
  return LayerKind::column;
}

class Builder {
 public:
  Builder(const ModelSpec& spec, const Json& base_config) : spec_(spec) {
    out_.config = read_hf_config(base_config, spec);
    out_.family = spec.family;
    out_.experts = spec.experts;
    out_.expert_in = spec.expert_in;
    out_.intermediate = spec.intermediate;
    out_.top_k = spec.top_k;
    out_.gated = spec.gated;
    out_.interleaved = spec.gate_up_order == GateUpOrder::interleaved && spec.family == "gpt_oss";
    out_.tied = spec.tied_embeddings;
    out_.own_dims =
        spec.family == "qwen3_5_moe" || spec.family == "nemotron_h" || spec.family == "llama4";
    always_sparse_ =
        spec.family == "qwen2_moe" || spec.family == "qwen3_moe" || spec.family == "qwen3_vl_moe";
  }

  ModelClass build() {
    group();
    for (const LinearSpec* linear : outside_)
      if (linear->role != Role::lm_head) add(*linear, linear->hub);
    for (int layer = 0; layer < out_.layers(); ++layer) add_layer(layer);
    for (const LinearSpec* linear : outside_)
      if (linear->role == Role::lm_head && !out_.tied) add(*linear, linear->hub);
    return std::move(out_);
  }

 private:
  bool is_sparse(int layer) const {
    const bool any =
        std::find(spec_.moe_layers.begin(), spec_.moe_layers.end(), true) != spec_.moe_layers.end();
    return always_sparse_ ? any || spec_.experts > 1 : spec_.is_moe(layer);
  }

  void group() {
    by_layer_.resize(static_cast<size_t>(out_.layers()));
    for (const LinearSpec& linear : spec_.linears) {
      if (linear.layer < 0)
        outside_.push_back(&linear);
      else if (linear.layer < out_.layers())
        by_layer_[static_cast<size_t>(linear.layer)].push_back(&linear);
    }
  }

  // The linears of a layer; where the class has a MoE block and the config says dense, those of
  // attention and, for the block, the linears of a layer that has one.
  std::vector<std::pair<const LinearSpec*, std::string>> linears(int layer) const {
    std::vector<std::pair<const LinearSpec*, std::string>> out;
    const bool replaced = always_sparse_ && !spec_.is_moe(layer);
    for (const LinearSpec* linear : by_layer_[static_cast<size_t>(layer)])
      if (!replaced || linear->role != Role::dense_mlp) out.emplace_back(linear, linear->hub);
    if (!replaced) return out;
    const auto other = std::find(spec_.moe_layers.begin(), spec_.moe_layers.end(), true);
    if (other == spec_.moe_layers.end()) return out;
    const int sample = static_cast<int>(other - spec_.moe_layers.begin());
    for (const LinearSpec* linear : by_layer_[static_cast<size_t>(sample)]) {
      if (linear->role == Role::attention || linear->role == Role::mixer) continue;
      std::string name = linear->hub;
      const std::string from = "layers." + std::to_string(sample) + ".";
      if (const size_t at = name.find(from); at != std::string::npos)
        name.replace(at, from.size(), "layers." + std::to_string(layer) + ".");
      out.emplace_back(linear, std::move(name));
    }
    return out;
  }

  void add_layer(int layer) {
    const auto all = linears(layer);
    std::map<std::string, const LinearSpec*, std::less<>> by_name;
    for (const auto& [linear, name] : all) by_name.emplace(name, linear);
    bool experts = !is_sparse(layer);
    for (const auto& [linear, name] : all) {
      if (!experts && linear->role != Role::attention && linear->role != Role::mixer &&
          linear->role != Role::router) {
        add_experts(layer);
        experts = true;
      }
      if (!add_fused(*linear, name, by_name)) add(*linear, name, layer);
    }
    if (!experts) add_experts(layer);
  }

  void add_experts(int layer) {
    ClassModule& module = out_.modules.emplace_back();
    module.name = spec_.expert_stem(Form::hub, layer);
    module.kind = LayerKind::fused_moe;
    module.layer = layer;
    out_.has_moe = true;
  }

  // Whether `linear` is a part of a fused module of its parent, which its first part adds.
  bool add_fused(const LinearSpec& linear, const std::string& name,
                 const std::map<std::string, const LinearSpec*, std::less<>>& by_name) {
    const std::string parent = parent_of(name);
    for (const Fusion& fusion : kFusions) {
      std::vector<const LinearSpec*> parts;
      for (std::string_view part : fusion.parts) {
        if (part.empty()) continue;
        const auto at = by_name.find(parent + std::string(part));
        if (at == by_name.end()) break;
        parts.push_back(at->second);
      }
      const size_t wanted = fusion.parts[2].empty() ? 2 : 3;
      if (parts.size() != wanted) continue;
      const auto mine = std::find(parts.begin(), parts.end(), &linear);
      if (mine == parts.end()) continue;
      if (mine == parts.begin()) add_parts(fusion, parent, parts, name);
      return true;
    }
    return false;
  }

  void add_parts(const Fusion& fusion, const std::string& parent,
                 const std::vector<const LinearSpec*>& parts, const std::string& name) {
    ClassModule& module = out_.modules.emplace_back();
    module.name = parent + std::string(fusion.fused);
    module.kind = fusion.kind;
    module.layer = layer_in(name, *parts.front());
    module.in = parts.front()->in;
    for (const LinearSpec* part : parts) module.out.push_back(part->out);
    if (fusion.fused != kGdn) return;
    const int64_t value = module.out[1], key = (module.out[0] - value) / 2;
    module.out = {key, key, value, value};  // q, k, v and z
  }

  // The layer in the name, which is not the sample's of a replaced block.
  static int layer_in(const std::string& name, const LinearSpec& linear) {
    const size_t at = name.find("layers.");
    return at == std::string::npos ? linear.layer : std::atoi(name.c_str() + at + 7);
  }

  void add(const LinearSpec& linear, const std::string& name, int layer = -1) {
    ClassModule& module = out_.modules.emplace_back();
    module.name = name;
    module.layer = layer;
    module.kind = kind_of(linear, leaf_of_path(name));
    module.in = linear.in;
    module.out = {linear.out};
    if (linear.role == Role::shared_expert_gate) {
      module.kind = LayerKind::foreign;
      module.python_type = kTorchLinear;
    }
    for (const ForeignRouter& router : kForeignRouters)
      if (linear.role == Role::router && router.family == spec_.family) {
        module.kind = LayerKind::foreign;
        module.python_type = router.python_type;
      }
  }

  const ModelSpec& spec_;
  ModelClass out_;
  bool always_sparse_ = false;
  std::vector<const LinearSpec*> outside_;
  std::vector<std::vector<const LinearSpec*>> by_layer_;
};

}  // namespace

std::string_view ClassModule::leaf() const { return leaf_of_path(name); }

std::vector<std::string> ClassModule::parts() const {
  std::vector<std::string> names;
  for (const Fusion& fusion : kFusions)
    if (fusion.fused == leaf())
      for (std::string_view part : fusion.parts)
        if (!part.empty()) names.push_back(parent_of(name) + std::string(part));
  return names.size() == out.size() ? names : std::vector<std::string>{name};
}

int64_t ClassModule::rows() const { return std::accumulate(out.begin(), out.end(), int64_t{0}); }

ModelClass make_model_class(const ModelSpec& spec, const Json& base_config) {
  return Builder(spec, base_config).build();
}

bool is_proven_class(std::string_view family) {
  constexpr std::array<std::string_view, 7> kProven = {
      "gpt_oss", "qwen3_moe", "qwen2_moe", "mixtral", "deepseek_v3", "glm4_moe", "qwen3"};
  return std::find(kProven.begin(), kProven.end(), family) != kProven.end();
}

}  // namespace moelora::sglang
