#include "lib/engine/vllm/server/module.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "lib/base/dotted_path.h"

namespace moelora::vllm {
namespace {

constexpr std::string_view kGateUp = "gate_up_proj", kValues = "v_proj";

bool lists(const std::vector<std::string>& list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

class Builder {
 public:
  Builder(const ModelSpec& spec, const Json& config, const ModelClass& model,
          const Settings& settings)
      : spec_(spec),
        config_(config),
        model_(model),
        kinds_(model.kinds),
        stacked_(wraps_stacked(model, settings)),
        takes_experts_(settings.has("0.11.1")),
        tp_(settings.tp) {
    for (const LinearSpec& linear : spec.linears) {
      if (linear.role == Role::embedding || linear.role == Role::lm_head || !linear.in_hub)
        continue;
      std::string name = name_of(linear);
      if (const auto place = find_layer(name); place && root_.empty())
        root_ = name.substr(0, place->begin);
      linears_.emplace(std::move(name), &linear);
    }
  }

  std::vector<Module> build() {
    if (model_.embeddings) add_whole(Role::embedding, Kind::embedding);
    for (const std::string& name : model_.outside)
      if (const LinearSpec* linear = take(name)) add_single(name, -1, *linear);
    for (int layer = 0; layer < spec_.layers; ++layer) add_layer(layer);
    if (model_.lm_head) add_whole(Role::lm_head, Kind::logits);
    return std::move(modules_);
  }

 private:
  std::string name_of(const LinearSpec& linear) const {
    std::string name = model_.names.map(linear.hub + ".");
    name.pop_back();
    return name;
  }

  void add_whole(Role role, Kind kind) {
    for (const LinearSpec& linear : spec_.linears)
      if (linear.role == role && linear.in_hub)
        modules_.push_back(
            {name_of(linear), kind, -1, false, {child(name_of(linear), linear)}, {}});
  }

  void add_layer(int layer) {
    const std::string prefix = root_ + std::to_string(layer) + ".";
    for (const ModuleName& module : model_.modules) {
      const std::string name = prefix + module.name;
      if (module.name == model_.experts)
        add_experts(name, layer);
      else if (const LinearSpec* linear = take(prefix + module.linear))
        lists(model_.split, leaf_of(name)) ? add_split(name, layer, *linear)
                                           : add_single(name, layer, *linear);
      else if (lists(kinds_.convolutions, leaf_of(name)))
        add_convolution(name, layer);
      else
        add_packed(name, layer);
    }
  }

  void add_experts(const std::string& name, int layer) {
    if (takes_experts_ && spec_.is_moe(layer))
      modules_.push_back(
          {name, stacked_ ? Kind::stacked_experts : Kind::experts, layer, true, {}, {}});
  }

  // A Linear belongs to one module: kv_a_proj_with_mqa stands alone only where it is not packed.
  const LinearSpec* take(const std::string& name) {
    const auto at = linears_.find(name);
    if (at == linears_.end() || at->second == nullptr) return nullptr;
    const LinearSpec* out = at->second;
    at->second = nullptr;
    return out;
  }

  static Child child(const std::string& name, const LinearSpec& linear) {
    return {name, linear.in, linear.out, 1, &linear};
  }

  Kind kind_of(std::string_view leaf) const {
    if (lists(kinds_.row, leaf)) return Kind::row;
    if (lists(kinds_.replicated, leaf)) return Kind::replicated;
    if (model_.joined.contains(leaf)) return Kind::joined;
    return model_.slices.contains(leaf) ? Kind::variable : Kind::column;
  }

  void add_single(const std::string& name, int layer, const LinearSpec& linear) {
    Module module{name, kind_of(leaf_of(name)), layer, false, {}, {}};
    module.children = {child(name, linear)};
    if (module.kind == Kind::column || module.kind == Kind::variable || module.kind == Kind::joined)
      module.children[0].parts = tp_;
    if (module.kind == Kind::variable)
      module.slices = slices_of_class(model_.slices, leaf_of(name), linear.out);
    if (module.kind == Kind::joined) {
      module.slices = slices_of_class(model_.joined, leaf_of(name), linear.out);
      if (module.slices.size() == 3) module.kv_parts = std::min(tp_, kv_heads());
    }
    modules_.push_back(std::move(module));
  }

  // Integers of the config, 0 where it has none, and the rows of the whole Linear as "out". A
  // config may leave the head_dim to its class.
  std::vector<int64_t> slices_of_class(
      const std::map<std::string, std::vector<Dimension>, std::less<>>& of, std::string_view leaf,
      int64_t out) const {
    std::vector<int64_t> slices;
    for (const Dimension& rows : of.find(leaf)->second) {
      Values values = {{"out", out}};
      for (const std::string& name : rows.names())
        values.try_emplace(name,
                           config_int(config_, name, name == "head_dim" ? spec_.head_dim : 0));
      slices.push_back(rows.value(values, model_.where));
    }
    return slices;
  }

  // Where the mixer's in_proj is, which its class packs or not.
  void add_convolution(const std::string& name, int layer) {
    const std::string mark = sibling(name, "in_proj");
    const auto mixer = linears_.lower_bound(mark);
    if (mixer == linears_.end() || !mixer->first.starts_with(mark)) return;
    Module module{name, Kind::unknown, layer, false, {Child{name}}, {}};
    if (model_.slices.contains(leaf_of(name))) split_convolution(module);
    modules_.push_back(std::move(module));
  }

  // MergedColumnParallelLinear of what the convolution runs over.
  void split_convolution(Module& module) const {
    module.kind = Kind::variable;
    module.slices = slices_of_class(model_.slices, leaf_of(module.name), 0);
    const int64_t rows = std::accumulate(module.slices.begin(), module.slices.end(), int64_t{0});
    module.children[0] = {module.name, config_int(config_, "conv_kernel", 4), rows, tp_};
  }

  void add_packed(const std::string& name, int layer) {
    const auto pack = kinds_.packed.find(leaf_of(name));
    if (pack == kinds_.packed.end()) return;
    if (pack->first == kGateUp && !packs_gate_up(model_, config_)) return;
    Module module{name, Kind::merged, layer, true, {}, {}};
    for (const std::string& word : pack->second)
      if (!linears_.contains(sibling(name, word)) && word != kValues) return;
    for (const std::string& word : pack->second) add_child(module, word);
    if (pack->second.front() == "in_proj_qkv") module.slices = key_value_slices(module);
    modules_.push_back(std::move(module));
  }

  // Equal parts of one Linear of the base.
  void add_split(const std::string& name, int layer, const LinearSpec& linear) {
    const std::vector<std::string>& words = kinds_.packed.find(leaf_of(name))->second;
    Module module{name, Kind::merged, layer, true, {}, {}};
    for (const std::string& word : words)
      module.children.push_back({sibling(name, word), linear.in,
                                 linear.out / static_cast<int64_t>(words.size()), tp_, &linear});
    modules_.push_back(std::move(module));
  }

  void add_child(Module& module, const std::string& word) {
    const std::string name = sibling(module.name, word);
    Child out;
    if (const LinearSpec* linear = take(name))
      out = child(name, *linear);
    else  // as wide as the keys, which are the values
      out = {name, module.children.back().in, module.children.back().out};
    out.parts = lists(kinds_.replicated, leaf_of(module.name)) ? 1 : tp_;
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

  const ModelSpec& spec_;
  const Json& config_;
  const ModelClass& model_;
  const LayerKinds& kinds_;
  const bool stacked_, takes_experts_;
  const int64_t tp_;
  std::string root_;
  std::map<std::string, const LinearSpec*> linears_;  // null: taken by a module
  std::vector<Module> modules_;
};

}  // namespace

int64_t config_int(const Json& config, std::string_view key, int64_t otherwise) {
  const Json* text = config.find("text_config");
  for (const Json* at : {text, &config})
    if (const Json* value = at != nullptr ? at->find(key) : nullptr;
        value != nullptr && value->is(Json::Kind::integer))
      return value->as_int();
  return otherwise;
}

bool wraps_stacked(const ModelClass& model, const Settings& settings) {
  const bool shared_outer = settings.shared_outer && settings.has("0.32");
  return settings.force_stacked || (model.stacked && !settings.mixed && !shared_outer);
}

std::vector<Module> make_modules(const ModelSpec& spec, const Json& base_config,
                                 const ModelClass& model, const Settings& settings) {
  return Builder(spec, base_config, model, settings).build();
}

std::set<std::string> keys_as_values(const std::vector<Module>& modules) {
  std::set<std::string> out;
  for (const Module& module : modules)
    for (size_t i = 1; module.packed && i < module.children.size(); ++i)
      if (module.children[i].linear == nullptr && module.children[i - 1].linear != nullptr)
        out.insert(module.children[i - 1].name);
  return out;
}

bool packs_gate_up(const ModelClass& model, const Json& base_config) {
  if (model.packs_gate_up_with.empty()) return true;
  const Json* layers = base_config.find(model.packs_gate_up_with);
  return layers != nullptr && !layers->items().empty();
}

}  // namespace moelora::vllm
