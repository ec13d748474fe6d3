#include "lib/engine/vllm/modules.h"

#include <algorithm>
#include <array>
#include <unordered_map>

namespace moelora::vllm {
namespace {

struct Pack {
  std::string_view leaf, children;
};

constexpr std::array<Pack, 6> kPacks = {{
    {"qkv_proj", "q_proj k_proj v_proj"},
    {"gate_up_proj", "gate_proj up_proj"},
    {"w13", "w1 w3"},
    {"fused_qkv_a_proj", "q_a_proj kv_a_proj_with_mqa"},
    {"in_proj_qkvz", "in_proj_qkv in_proj_z"},
    {"in_proj_ba", "in_proj_b in_proj_a"},
}};

constexpr std::string_view kRow = "o_proj down_proj out_proj w2 x_proj";
constexpr std::string_view kReplicated =
    "gate router shared_expert_gate kv_a_proj_with_mqa fc1_latent_proj fc2_latent_proj";
constexpr std::string_view kConvolutions = "conv1d conv";

std::string_view leaf_of(std::string_view name) { return name.substr(name.rfind('.') + 1); }
std::string_view parent_of(std::string_view name) { return name.substr(0, name.rfind('.') + 1); }

bool lists(std::string_view list, std::string_view word) {
  const auto all = words_of(list);
  return std::find(all.begin(), all.end(), word) != all.end();
}

int64_t config_int(const Json& config, std::string_view key, int64_t otherwise) {
  const Json* text = config.find("text_config");
  for (const Json* at : {text, &config})
    if (const Json* value = at != nullptr ? at->find(key) : nullptr;
        value != nullptr && value->is(Json::Kind::integer))
      return value->as_int();
  return otherwise;
}

Kind kind_of(std::string_view leaf, const ModelClass& model) {
  if (lists(kRow, leaf)) return Kind::row;
  if (lists(kReplicated, leaf)) return Kind::replicated;
  const bool split = model.name == "NemotronHForCausalLM" || model.name == "Lfm2MoeForCausalLM";
  return leaf == "in_proj" && split ? Kind::variable : Kind::column;
}

class Builder {
 public:
  Builder(const Server& server, const Json& config) : server_(server), config_(config) {
    for (const LinearSpec& linear : server.spec.linears) {
      std::string name = server.mapper.map(linear.hub + ".");
      name.pop_back();
      if (linear.role == Role::embedding)
        embedding_ = {name, &linear};
      else if (linear.role == Role::lm_head)
        head_ = {name, &linear};
      else
        add_linear(std::move(name), linear);
    }
  }

  std::vector<Module> build() {
    if (server_.model.embeddings) add_whole(embedding_, Kind::embedding);
    for (int layer = 0; layer < server_.spec.layers; ++layer) add_layer(layer);
    if (server_.model.embeddings) add_whole(head_, Kind::logits);
    return std::move(modules_);
  }

 private:
  struct Named {
    std::string name;
    const LinearSpec* linear = nullptr;
  };

  void add_linear(std::string name, const LinearSpec& linear) {
    const std::string mark = "layers." + std::to_string(linear.layer) + ".";
    if (const size_t at = name.find(mark); at != std::string::npos && root_.empty())
      root_ = name.substr(0, at) + "layers.";
    linears_.emplace(std::move(name), &linear);
  }

  void add_whole(const Named& named, Kind kind) {
    if (named.linear == nullptr) return;
    modules_.push_back({named.name, kind, -1, false, {child(named.name, *named.linear)}, {}});
  }

  void add_layer(int layer) {
    const std::string prefix = root_ + std::to_string(layer) + ".";
    for (std::string_view entry : words_of(server_.model.modules)) {
      const size_t equals = entry.find('=');
      const std::string name = prefix + std::string(entry.substr(0, equals));
      const std::string source =
          equals == std::string_view::npos ? name : prefix + std::string(entry.substr(equals + 1));
      if (entry == server_.model.experts)
        add_experts(name, layer);
      else if (const LinearSpec* linear = take(source))
        add_single(name, layer, *linear);
      else if (lists(kConvolutions, leaf_of(name)))
        add_convolution(name, layer);
      else
        add_packed(name, layer);
    }
  }

  void add_experts(const std::string& name, int layer) {
    if (server_.spec.is_moe(layer))
      modules_.push_back(
          {name, server_.stacked() ? Kind::stacked_experts : Kind::experts, layer, true, {}, {}});
  }

  // A Linear belongs to one module: kv_a_proj_with_mqa stands alone only where it is not packed.
  const LinearSpec* take(const std::string& name) {
    const auto at = linears_.find(name);
    if (at == linears_.end() || at->second == nullptr) return nullptr;
    const LinearSpec* out = at->second;
    at->second = nullptr;
    return out;
  }

  Child child(const std::string& name, const LinearSpec& linear) const {
    return {name, linear.in, linear.out, 1, &linear};
  }

  void add_single(const std::string& name, int layer, const LinearSpec& linear) {
    Module module{name, kind_of(leaf_of(name), server_.model), layer, false, {}, {}};
    module.children = {child(name, linear)};
    if (module.kind == Kind::column || module.kind == Kind::variable)
      module.children[0].parts = server_.settings.tp;
    if (module.kind == Kind::variable) module.slices = variable_slices(linear);
    modules_.push_back(std::move(module));
  }

  std::vector<int64_t> variable_slices(const LinearSpec& linear) const {
    if (server_.model.name == "Lfm2MoeForCausalLM")
      return {linear.out / 3, linear.out / 3, linear.out / 3};
    const auto [inner, state, heads] = mamba_sizes();
    return {inner, inner, state, state, heads};
  }

  struct MambaSizes {
    int64_t inner, state, heads;
  };
  MambaSizes mamba_sizes() const {
    const int64_t heads = config_int(config_, "mamba_num_heads", 0);
    return {heads * config_int(config_, "mamba_head_dim", 0),
            config_int(config_, "n_groups", 0) * config_int(config_, "ssm_state_size", 0), heads};
  }

  // Where the mixer's in_proj is, which its class packs or not.
  void add_convolution(const std::string& name, int layer) {
    const std::string mark = std::string(parent_of(name)) + "in_proj";
    const auto sibling = linears_.lower_bound(mark);
    if (sibling == linears_.end() || !sibling->first.starts_with(mark)) return;
    Module module{name, Kind::unknown, layer, false, {Child{name}}, {}};
    if (server_.model.name == "NemotronHForCausalLM") split_convolution(module);
    modules_.push_back(std::move(module));
  }

  // MergedColumnParallelLinear of what the convolution runs over: x, B and C.
  void split_convolution(Module& module) const {
    const auto [inner, state, heads] = mamba_sizes();
    module.kind = Kind::variable;
    module.slices = {inner, state, state};
    module.children[0] = {module.name, config_int(config_, "conv_kernel", 4), inner + 2 * state,
                          server_.settings.tp};
  }

  void add_packed(const std::string& name, int layer) {
    const auto pack = std::find_if(kPacks.begin(), kPacks.end(),
                                   [&](const Pack& p) { return p.leaf == leaf_of(name); });
    if (pack == kPacks.end()) return;
    if (pack->leaf == "gate_up_proj" && !packs_gate_up(server_, config_)) return;
    Module module{name, Kind::merged, layer, true, {}, {}};
    const auto children = words_of(pack->children);
    for (std::string_view word : children)
      if (!linears_.contains(std::string(parent_of(name)) + std::string(word))) return;
    for (std::string_view word : children) add_child(module, word);
    if (pack->leaf == "in_proj_qkvz") module.slices = key_value_slices(module);
    modules_.push_back(std::move(module));
  }

  void add_child(Module& module, std::string_view word) {
    const std::string name = std::string(parent_of(module.name)) + std::string(word);
    Child out = child(name, *take(name));
    out.parts = leaf_of(module.name) == "fused_qkv_a_proj" ? 1 : server_.settings.tp;
    if (word == "k_proj" || word == "v_proj") out.parts = std::min(out.parts, kv_heads());
    module.children.push_back(std::move(out));
  }

  int64_t kv_heads() const {
    return std::max<int64_t>(1, config_int(config_, "num_key_value_heads",
                                           config_int(config_, "num_attention_heads", 1)));
  }

  // in_proj_qkv holds queries and keys of one size and values of in_proj_z's.
  static std::vector<int64_t> key_value_slices(const Module& module) {
    const int64_t value = module.children[1].out, key = (module.children[0].out - value) / 2;
    return {key, key, value, value};
  }

  const Server& server_;
  const Json& config_;
  std::string root_;
  Named embedding_, head_;
  std::map<std::string, const LinearSpec*> linears_;  // null: taken by a module
  std::vector<Module> modules_;
};

}  // namespace

std::vector<Module> make_modules(const Server& server, const Json& base_config) {
  return Builder(server, base_config).build();
}

bool packs_gate_up(const Server& server, const Json& base_config) {
  if (server.model.name != "Qwen3MoeForCausalLM") return true;
  const Json* layers = base_config.find("mlp_only_layers");
  return layers != nullptr && !layers->items().empty();
}

}  // namespace moelora::vllm
