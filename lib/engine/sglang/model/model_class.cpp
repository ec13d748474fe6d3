#include "lib/engine/sglang/model/model_class.h"

#include <algorithm>
#include <map>
#include <numeric>
#include <utility>

#include "lib/base/dotted_path.h"

namespace moelora::sglang {
namespace {

// ---- config.json -----------------------------------------------------------------------------

// Some ten times what exists: keeps products of two within int64.
constexpr int64_t kMostOfConfig = int64_t{1} << 28;

class Reader {
 public:
  explicit Reader(const Json& config) : top_(config), text_(config.find("text_config")) {
    const Json* thinker = config.find("thinker_config");  // Qwen3-Omni's
    if (text_ == nullptr && thinker != nullptr) text_ = thinker->find("text_config");
  }

  const Json* find(std::string_view key) const {
    const Json* found = text_ != nullptr ? text_->find(key) : nullptr;
    if (found == nullptr) found = top_.find(key);
    return found != nullptr && found->is(Json::Kind::null) ? nullptr : found;
  }

  bool is_true(std::string_view key) const {
    const Json* value = find(key);
    return value != nullptr && value->is(Json::Kind::boolean) && value->as_bool();
  }

  std::optional<int64_t> number(std::string_view key) const {
    const Json* value = find(key);
    if (value == nullptr || !value->is(Json::Kind::integer)) return std::nullopt;
    return std::clamp<int64_t>(value->as_int(), 0, kMostOfConfig);
  }

 private:
  const Json& top_;
  const Json* text_;
};

// "qwen3_moe" is QwenMoeConfig's spelling of itself: Qwen3MoeConfig.
std::string config_class(const std::string& model_type) {
  std::string out;
  bool capital = true;
  for (char c : model_type) {
    if (c == '_') {
      capital = true;
      continue;
    }
    out += capital && c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c;
    capital = false;
  }
  return out + "Config";
}

const LinearSpec* first_linear(const ModelSpec& spec, std::string_view ending) {
  for (const LinearSpec& linear : spec.linears)
    if (linear.hub.ends_with(ending)) return &linear;
  return nullptr;
}

void read_attention(const Reader& reader, const ModelSpec& spec, HfConfig& out) {
  out.heads = std::max<int64_t>(1, reader.number("num_attention_heads").value_or(1));
  out.kv_heads = std::max<int64_t>(1, reader.number("num_key_value_heads").value_or(out.heads));
  out.head_dim = reader.number("head_dim").value_or(0);
  const LinearSpec* k = first_linear(spec, ".k_proj");
  if (out.head_dim == 0 && k != nullptr) out.head_dim = k->out / out.kv_heads;
  if (out.head_dim == 0) out.head_dim = out.hidden / out.heads;
  out.v_head_dim = reader.number("v_head_dim").value_or(out.head_dim);
  out.q_lora_rank = reader.number("q_lora_rank");
  out.kv_lora_rank = reader.number("kv_lora_rank");
  out.qk_nope = reader.number("qk_nope_head_dim");
  out.qk_rope = reader.number("qk_rope_head_dim");
}

// The number of layers where there is none.
int64_t first_moe_layer(const ModelSpec& spec) {
  return std::find(spec.moe_layers.begin(), spec.moe_layers.end(), true) - spec.moe_layers.begin();
}

// `has_first_dense`: the config's class has first_k_dense_replace with a default of its own.
HfConfig read_hf_config(const Json& base_config, const ModelSpec& spec, bool has_first_dense) {
  const Reader reader(base_config);
  HfConfig out;
  out.type = config_class(spec.model_type);
  out.hidden = spec.hidden;
  out.layers = spec.layers;
  out.vocab = spec.vocab;
  read_attention(reader, spec, out);
  const LinearSpec* dense = first_linear(spec, ".mlp.gate_proj");
  out.intermediate = reader.number("intermediate_size")
                         .value_or(dense != nullptr ? dense->out : spec.intermediate);
  out.moe_intermediate = reader.number("moe_intermediate_size");
  out.first_dense = reader.number("first_k_dense_replace");
  if (!out.first_dense && has_first_dense) out.first_dense = first_moe_layer(spec);
  out.n_shared_experts = reader.number("n_shared_experts");
  out.moe_layer_freq = std::max<int64_t>(1, reader.number("moe_layer_freq").value_or(1));
  out.shared_intermediate = reader.number("shared_expert_intermediate_size").value_or(0);
  out.has_num_experts = reader.find("num_experts") != nullptr;
  return out;
}

// ---- the class -------------------------------------------------------------------------------

constexpr std::string_view kTorchLinear = "torch.nn.modules.linear.Linear";

LayerKind kind_of(const LinearSpec& linear, std::string_view leaf) {
  if (linear.role == Role::embedding) return LayerKind::embedding;
  if (linear.role == Role::lm_head) return LayerKind::lm_head;
  if (is_row_linear(leaf)) return LayerKind::row;
  if (is_replicated_linear(leaf) || linear.role == Role::router) return LayerKind::replicated;
  return LayerKind::column;
}

struct Builder {
  const ModelSpec& spec;
  ModelClass out = {};

  ModelClass build(const Json& base_config) {
    out.facts = read_class_facts(spec);
    out.config = read_hf_config(base_config, spec, out.facts.first_k_dense_replace);
    out.family = spec.family;
    out.architecture = spec.architecture;
    out.activation = spec.activation;
    out.experts = spec.experts;
    out.expert_in = spec.expert_in;
    out.intermediate = spec.intermediate;
    out.top_k = spec.top_k;
    out.gated = spec.gated;
    out.interleaved =
        spec.gate_up_order == GateUpOrder::interleaved && out.facts.interleaves_gate_up;
    out.tied = spec.tied_embeddings;
    out.indexer_interleaves = Reader(base_config).is_true("indexer_rope_interleave");
    for (const LinearSpec& linear : spec.linears)
      if (linear.layer < 0 && linear.role != Role::lm_head && linear.in_hub)
        add(linear, linear.hub);
    for (int layer = 0; layer < out.layers(); ++layer) add_layer(layer);
    for (const LinearSpec& linear : spec.linears)
      if (linear.layer < 0 && linear.role == Role::lm_head && linear.in_hub && !out.tied)
        add(linear, linear.hub);
    return std::move(out);
  }

  bool is_sparse(int layer) const {
    if (!out.facts.experts_in_every_layer) return spec.is_moe(layer);
    return has_moe_layer() || spec.experts > 1;
  }

  bool has_moe_layer() const {
    return first_moe_layer(spec) < static_cast<int64_t>(spec.moe_layers.size());
  }

  // The linears of a layer; where the class has a MoE block and the config says dense, those of
  // attention and, for the block, the linears of a layer that has one.
  std::vector<std::pair<const LinearSpec*, std::string>> linears(int layer) const {
    std::vector<std::pair<const LinearSpec*, std::string>> found;
    const bool replaced = out.facts.experts_in_every_layer && !spec.is_moe(layer);
    for (const LinearSpec& linear : spec.linears)
      if (linear.layer == layer && linear.in_hub && (!replaced || linear.role != Role::dense_mlp))
        found.emplace_back(&linear, linear.hub);
    if (!replaced || !has_moe_layer()) return found;
    const int64_t sample = first_moe_layer(spec);
    for (const LinearSpec& linear : spec.linears) {
      const bool of_block = linear.role != Role::attention && linear.role != Role::mixer;
      if (linear.layer != sample || !of_block || !linear.in_hub) continue;
      std::string name = linear.hub;
      if (const auto at = find_layer(name))
        name.replace(at->begin, at->end - at->begin, std::to_string(layer));
      found.emplace_back(&linear, std::move(name));
    }
    return found;
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
      if (!add_packed(*linear, name, layer, by_name) && !add_whole(*linear, name, layer))
        add(*linear, name, layer);
    }
    if (!experts) add_experts(layer);
  }

  void add_experts(int layer) {
    ClassModule& module = out.modules.emplace_back();
    module.name = spec.expert_stem(Form::hub, layer);
    module.kind = LayerKind::fused_moe;
    module.layer = layer;
    out.has_moe = true;
  }

  // Whether the hub's files hold `linear` packed already (Phi-3's qkv_proj): then it is one, split
  // as SGLang splits it.
  bool add_whole(const LinearSpec& linear, const std::string& name, int layer) {
    const auto packed = std::find_if(
        out.facts.packed.begin(), out.facts.packed.end(),
        [&](const PackedModule& one) { return one.name == leaf_of(name) && !one.splits_first; });
    if (packed == out.facts.packed.end() || packed->kind == LayerKind::replicated) return false;
    add(linear, name, layer);
    ClassModule& module = out.modules.back();
    module.kind = packed->kind;
    const int64_t kv = out.config.kv_heads * out.config.head_dim;
    module.out =
        packed->kind == LayerKind::qkv
            ? std::vector<int64_t>{std::max<int64_t>(0, linear.out - 2 * kv), kv, kv}
            : std::vector<int64_t>(packed->parts.size(),
                                   linear.out / static_cast<int64_t>(packed->parts.size()));
    return true;
  }

  // Whether `linear` is a part of a packed module of its parent, which its first part adds.
  bool add_packed(const LinearSpec& linear, const std::string& name, int layer,
                  const std::map<std::string, const LinearSpec*, std::less<>>& by_name) {
    const std::string stem(stem_of(name));
    for (const PackedModule& packed : out.facts.packed) {
      std::vector<const LinearSpec*> parts;
      for (const std::string& part : packed.parts)
        if (const auto at = by_name.find(stem + part); at != by_name.end())
          parts.push_back(at->second);
      if (parts.size() != packed.parts.size()) continue;
      const auto mine = std::find(parts.begin(), parts.end(), &linear);
      if (mine == parts.end()) continue;
      if (mine == parts.begin()) add_parts(packed, stem, parts, layer);
      return true;
    }
    return false;
  }

  void add_parts(const PackedModule& packed, const std::string& stem,
                 const std::vector<const LinearSpec*>& parts, int layer) {
    ClassModule& module = out.modules.emplace_back();
    module.name = stem + packed.name;
    module.kind = packed.kind;
    module.layer = layer;
    module.in = parts.front()->in;
    for (const LinearSpec* part : parts) module.out.push_back(part->out);
    if (packed.splits_first) {
      const int64_t value = module.out[1], key = (module.out[0] - value) / 2;
      module.out = {key, key, value, value};  // q, k, v and z
      module.parts = {module.name};
    } else {
      for (const std::string& part : packed.parts) module.parts.push_back(stem + part);
    }
  }

  void add(const LinearSpec& linear, const std::string& name, int layer = -1) {
    ClassModule& module = out.modules.emplace_back();
    module.name = name;
    module.parts = {name};
    module.layer = layer;
    module.kind = kind_of(linear, leaf_of(name));
    module.in = linear.in;
    module.out = {linear.out};
    if (linear.role == Role::shared_expert_gate) {
      module.kind = LayerKind::foreign;
      module.python_type = kTorchLinear;
    }
    if (linear.role == Role::router && !out.facts.router_type.empty()) {
      module.kind = LayerKind::foreign;
      module.python_type = out.facts.router_type;
    }
  }
};

}  // namespace

std::string_view ClassModule::leaf() const { return leaf_of(name); }

int64_t ClassModule::rows() const { return std::accumulate(out.begin(), out.end(), int64_t{0}); }

ModelClass make_model_class(const ModelSpec& spec, const Json& base_config) {
  return Builder{spec}.build(base_config);
}

}  // namespace moelora::sglang
