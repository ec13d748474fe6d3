#include "lib/model/model_builder.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <optional>

#include "lib/base/dotted_path.h"
#include "lib/base/nearest.h"
#include "lib/model/forward_facts.h"

namespace moelora {
namespace {

constexpr int64_t kMaxValue = int64_t{1} << 40;

int64_t scalar(const JsonView& json) {
  if (json.json().is(Json::Kind::boolean)) return json.boolean() ? 1 : 0;
  const int64_t value = json.integer();
  if (value < -1 || value > kMaxValue)
    json.fail(fmt::format("found {}, expected -1 to {}", value, kMaxValue));
  return value;
}

int64_t integer_value(const JsonView& json) {
  if (!json.json().is(Json::Kind::array)) return scalar(json);
  const auto items = json.items();
  if (items.empty()) json.fail("found an empty array, expected an integer");
  const int64_t first = scalar(items.front());
  for (const JsonView& item : items) {
    if (scalar(item) != first)
      item.fail(
          fmt::format("found {} after {}, expected the same for all layers", scalar(item), first));
  }
  return first;
}

bool is_auto(const JsonView& json) {
  return json.json().is(Json::Kind::string) && json.string() == "auto";
}

// A member of a member: "thinker_config.text_config".
std::optional<JsonView> find_path(const JsonView& json, std::string_view path) {
  const size_t dot = path.find('.');
  const auto found = json.json().is(Json::Kind::object) ? json.find(path.substr(0, dot))
                                                        : std::optional<JsonView>();
  return !found || dot == std::string_view::npos ? found : find_path(*found, path.substr(dot + 1));
}

JsonView at_path(const JsonView& json, const std::string& path) {
  if (path.empty()) return json;
  if (const auto found = find_path(json, path)) return *found;
  json.fail(fmt::format("the key \"{}\" is missing", path));
}

// Bounds against a config that would make us list forever or whose products overflow: some ten
// times what exists.
constexpr int64_t kMaxLayers = 1000, kMaxExperts = 4096;
constexpr size_t kMaxModules = size_t{1} << 18;  // Switch-C: some 120,000 of experts
constexpr int64_t kMaxWidth = int64_t{1} << 28, kMaxHeads = int64_t{1} << 20;

std::string architecture_of(const JsonView& config) {
  const std::vector<std::string> all = config.strings_or_none("architectures");
  return all.empty() ? "" : all.front();
}

const ClassPaths& paths_in(const Variant& variant, const std::string& architecture) {
  const auto own = variant.classes.find(architecture);
  return own == variant.classes.end() ? variant.paths : own->second;
}

bool is_word(const JsonView& json, std::string_view word) {
  return json.json().is(Json::Kind::string) && json.string() == word;
}

// A config.json read through a family's spellings.
class ModelBuilder {
 public:
  ModelBuilder(const Json& config, const std::string& where, const Family& family,
               const Variant& variant)
      : family_(family),
        variant_(variant),
        where_(where),
        top_(config, where),
        nested_(at_path(top_, variant.config)),
        paths_(paths_in(variant, architecture_of(top_))) {}

  ModelSpec build() {
    set_values();
    place_stacks();
    set_dimensions();
    for (PlacedStack& stack : stacks_) choose_layers(stack);
    if (has_experts())
      set_experts();
    else
      spec_.moe_layers.resize(static_cast<size_t>(spec_.layers));
    add_embedding();
    find_layer_configs();
    for (const ModuleBlock& block : family_.outside)
      if (is_meant(block)) add_block(block, "", -1);
    for (const PlacedStack& stack : stacks_)
      for (int layer = 0; layer < stack.count; ++layer) add_layer(stack, layer);
    add_lm_head();
    set_aliases();
    set_forward();
    spec_.index_linears();
    return std::move(spec_);
  }

 private:
  // A stack as this config has it.
  struct PlacedStack {
    const LayerStack& of;
    int first, count;  // of the model's layers
    std::map<std::string, std::vector<bool>> choices;
  };

  // What a layer has otherwise, below `nested` ("text_config"), then at the top; null counts as
  // absent.
  std::optional<JsonView> find(const std::string& key) const {
    if (key.empty()) return nested_;
    if (of_layer_)
      if (auto found = find_path(*of_layer_, key)) return found;
    auto found = find_path(nested_, key);
    return found ? found : find_path(top_, key);
  }

  static int64_t element_of(const JsonView& json, size_t element) {
    if (!json.json().is(Json::Kind::array)) return scalar(json);
    const auto items = json.items();
    if (element >= items.size())
      json.fail(fmt::format("has {} entries, expected more than {}", items.size(), element));
    return scalar(items[element]);
  }

  // Of a list with one integer a layer: that of the layer, and 0 where no layer is meant and they
  // differ.
  int64_t of_layers(const JsonView& json) const {
    if (layer_) return element_of(json, *layer_);
    const auto items = json.items();
    const bool same = std::all_of(items.begin(), items.end(), [&](const JsonView& item) {
      return scalar(item) == scalar(items.front());
    });
    return same && !items.empty() ? scalar(items.front()) : 0;
  }

  std::optional<int64_t> given(const ValueRule& rule) const {
    if (!rule.present.empty())
      return std::any_of(rule.present.begin(), rule.present.end(),
                         [this](const std::string& key) { return find(key).has_value(); });
    for (const std::string& key : rule.keys) {
      auto found = rule.top_first ? find_path(top_, key) : std::nullopt;
      if (!found) found = find(key);
      if (!found || (rule.function != nullptr && is_auto(*found))) continue;
      if (!rule.equals.empty()) return is_word(*found, rule.equals);
      if (rule.by_layer && found->json().is(Json::Kind::array)) return of_layers(*found);
      return rule.element ? element_of(*found, *rule.element) : integer_value(*found);
    }
    for (const std::string& key : rule.lengths) {
      const auto found = find(key);
      if (!found) continue;
      if (found->json().is(Json::Kind::string)) return static_cast<int64_t>(found->string().size());
      if (found->json().is(Json::Kind::object))
        return static_cast<int64_t>(found->members().size());
      return static_cast<int64_t>(found->items().size());
    }
    return std::nullopt;
  }

  // May use the values of the rules before it. true is 1, false 0; a list of equal integers (one
  // per layer) is that integer. Throws Error at the config: a key that is missing, of the wrong
  // kind, or out of range.
  int64_t value(const ValueRule& rule) const {
    if (const auto found = given(rule)) return *found;
    if (rule.otherwise) return rule.otherwise->value(values_, nested_.where());
    if (rule.function != nullptr) return rule.function->value(values_);
    std::vector<std::string> keys = rule.keys;
    keys.insert(keys.end(), rule.lengths.begin(), rule.lengths.end());
    nested_.fail(fmt::format("the key \"{}\" is missing, which a {} model needs",
                             fmt::join(keys, "\" or \""), family_.name));
  }

  void set_values() {
    values_.clear();
    for (const ValueRule& rule : family_.values) values_[rule.name] = value(rule);
  }

  bool has_experts() const {
    return family_.has_experts &&
           (family_.experts_if.empty() || values_.at(family_.experts_if) != 0);
  }

  int64_t number(const std::string& name, int64_t least, int64_t most) const {
    const int64_t value = values_.at(name);
    if (value >= least && value <= most) return value;
    nested_.fail(fmt::format("{} is {}, expected {} to {}", key_of(name), value, least, most));
  }

  std::string key_of(const std::string& name) const {
    for (const ValueRule& rule : family_.values)
      if (rule.name == name && !rule.keys.empty()) return rule.keys.front();
    return name;
  }

  int64_t optional(const std::string& name, int64_t otherwise) const {
    const auto found = values_.find(name);
    return found == values_.end() ? otherwise : found->second;
  }

  void set_dimensions() {
    spec_.family = family_.name;
    spec_.engines = family_.engines;
    spec_.family_file = family_.where;
    spec_.model_type = variant_.model_type;
    spec_.peft = variant_.peft;
    spec_.layers = stacks_.back().first + stacks_.back().count;
    spec_.has_encoder = stacks_.size() > 1;
    spec_.hidden = number("hidden", 1, kMaxWidth);
    spec_.vocab = number("vocab", 1, kMaxWidth);
    spec_.tied_embeddings = optional("tied", 0) != 0;
    spec_.heads = std::clamp<int64_t>(optional("heads", 0), 0, kMaxHeads);
    spec_.kv_heads = std::clamp<int64_t>(optional("kv_heads", 0), 0, kMaxHeads);
    spec_.head_dim = std::clamp<int64_t>(optional("head_dim", 0), 0, kMaxWidth);
    spec_.architecture = architecture_of(top_);
  }

  void place_stacks() {
    int first = 0;
    for (const LayerStack& stack : family_.stacks) {
      const int count = static_cast<int>(number(stack.count, 1, kMaxLayers));
      stacks_.push_back({stack, first, count, {}});
      first += count;
    }
  }

  void choose_layers(PlacedStack& stack) const {
    const FindKey find_key = [this](const std::string& key) { return find(key); };
    for (const auto& [name, choice] : stack.of.choices)
      stack.choices[name] = choice.layers(stack.count, values_, find_key, family_.where);
  }

  ExpertStorage storage_of(ExpertStorage storage, bool hub) const {
    storage.stem = path_of(family_.stacks.front().path + "." + storage.stem, hub);
    return storage;
  }

  void set_experts() {
    spec_.experts = number("experts", 1, kMaxExperts);
    spec_.top_k = number("top_k", 1, spec_.experts);
    spec_.intermediate = number("intermediate", 1, kMaxWidth);
    spec_.expert_in =
        values_.count("expert_in") != 0 ? number("expert_in", 1, kMaxWidth) : spec_.hidden;
    spec_.gated = family_.gated;
    spec_.expert_bias = family_.expert_bias.value(values_, family_.where) != 0;
    spec_.idle_experts = idle_experts();
    spec_.gate_up_order = family_.gate_up_order;
    spec_.activation = activation();
    spec_.moe_layers = stacks_.front().choices.at("moe");
    spec_.memory = storage_of(family_.memory_experts, false);
    spec_.hub = variant_.saved_as_memory
                    ? spec_.memory
                    : storage_of(variant_.hub_experts.value_or(family_.hub_experts), true);
    const auto quantization = find("quantization_config");
    const auto method = quantization ? quantization->find("quant_method") : std::nullopt;
    spec_.hub_mxfp4 = method && method->string() == "mxfp4";
  }

  int64_t idle_experts() const {
    const int64_t idle = family_.idle_experts.value(values_, where_);
    if (idle < 0 || idle > kMaxExperts)
      nested_.fail(fmt::format("{} experts are never run, expected 0 to {}", idle, kMaxExperts));
    return idle;
  }

  std::string activation() const {
    for (const std::string& key : family_.activation_keys)
      if (const auto found = find(key)) return found->string();
    return family_.activation;
  }

  // A module path as this variant has it; the family file spells paths as they are in memory.
  std::string path_of(const std::string& path, bool hub) const {
    if (!hub || variant_.saved_as_memory) return prefix_renamed(path, paths_.prefixes);
    return prefix_renamed(renamed(path, family_.hub_names),
                          paths_.hub_prefixes.value_or(paths_.prefixes));
  }

  struct Forms {
    bool hub_linear, memory_linear, in_hub = true, in_memory = true;
  };

  void add_linear(const std::string& path, Role role, int layer, int64_t out, int64_t in, bool bias,
                  Forms forms) {
    if (in < 1 || out < 1 || in > kMaxWidth || out > kMaxWidth) {
      throw Error(where_, fmt::format("{} would be [{}, {}]", path, out, in),
                  fmt::format("check the config against {}", family_.where));
    }
    if (spec_.linears.size() >= kMaxModules)
      nested_.fail(fmt::format("the model would have more than {} modules", kMaxModules));
    if (variant_.saved_as_memory) {
      if (!forms.in_memory) return;
      forms.in_hub = true;
    }
    spec_.linears.push_back({path_of(path, forms.in_hub), path_of(path, !forms.in_memory), role,
                             layer, in, out, bias, forms.hub_linear, forms.memory_linear,
                             forms.in_hub, forms.in_memory});
  }

  void add_embedding() {
    add_linear(family_.embedding, Role::embedding, -1, spec_.hidden, spec_.vocab, false,
               {false, false});
  }

  void add_lm_head() {
    if (!paths_.has_lm_head) return;
    const bool bias = family_.lm_head_bias.value(values_, family_.where) != 0;
    const int64_t rows =
        family_.lm_head_rows ? family_.lm_head_rows->value(values_, where_) : spec_.vocab;
    const bool same = rows == spec_.vocab;
    if (!same)
      add_linear(family_.lm_head, Role::lm_head, -1, rows, spec_.hidden, bias,
                 {true, true, false, true});
    add_linear(family_.lm_head, Role::lm_head, -1, spec_.vocab, spec_.hidden, bias,
               {true, true, true, same});
  }

  bool is_meant(const ModuleBlock& block) const {
    if (!block.only_if.empty() && values_.at(block.only_if) == 0) return false;
    return block.unless.empty() || values_.at(block.unless) == 0;
  }

  // `layer`: within the stack.
  bool is_present(const ModuleBlock& block, const PlacedStack& stack, int layer) const {
    return std::all_of(block.layers.begin(), block.layers.end(),
                       [&](const ModuleBlock::Condition& condition) {
                         return stack.choices.at(condition.choice)[static_cast<size_t>(layer)] !=
                                condition.is_not;
                       }) &&
           is_meant(block);
  }

  // `stem`: "model.layers.3.", or "" outside the layers.
  void add_block(const ModuleBlock& block, const std::string& stem, int layer) {
    if (block.role != Role::expert) return add_linears(block, stem + block.path, layer);
    constexpr std::string_view kExpert = "{expert}";
    const int64_t experts = number("experts", 1, kMaxExperts);
    for (int64_t e = 0; e < experts; ++e) {
      std::string path = block.path;
      path.replace(path.find(kExpert), kExpert.size(), std::to_string(e));
      add_linears(block, stem + path, layer);
    }
  }

  void add_linears(const ModuleBlock& block, const std::string& stem, int layer) {
    const bool bias = block.bias.value(values_, family_.where) != 0;
    for (const auto& linear : block.linears) {
      const std::string path = linear.name.empty() ? stem : stem + "." + linear.name;
      add_linear(path, block.role, layer, linear.out.value(values_, where_),
                 linear.in.value(values_, where_), bias,
                 {block.hub_linear, block.memory_linear, block.in_hub, block.in_memory});
    }
  }

  // What the config says of single layers; transformers pads the numbers: "05" beside "11".
  void find_layer_configs() {
    std::optional<JsonView> layers;
    for (const std::string& key : family_.per_layer)
      if (!layers) layers = find(key);
    if (!layers) return;
    for (const auto& [name, values] : layers->members()) {
      if (name.empty()) continue;
      const size_t digits = std::min(name.find_first_not_of('0'), name.size() - 1);
      if (const auto layer = parse_index(std::string_view(name).substr(digits)))
        layer_configs_.emplace(*layer, values);
    }
  }

  void add_layer(const PlacedStack& stack, int layer) {
    if (const auto own = layer_configs_.find(layer); own != layer_configs_.end())
      of_layer_ = own->second;
    layer_ = static_cast<size_t>(layer);
    const bool differs = of_layer_ || has_values_by_layer();
    if (differs) set_values();
    const std::string stem = with_layer(stack.of.path, layer) + ".";
    for (const ModuleBlock& block : stack.of.blocks)
      if (is_present(block, stack, layer)) add_block(block, stem, stack.first + layer);
    layer_.reset();
    of_layer_.reset();
    if (differs) set_values();
  }

  bool has_values_by_layer() const {
    return std::any_of(family_.values.begin(), family_.values.end(),
                       [](const ValueRule& rule) { return rule.by_layer; });
  }

  void set_aliases() {
    const std::string head = paths_.has_lm_head ? path_of(family_.lm_head, false) : "lm_head";
    for (const char* name : {"model.unembed_tokens", "unembed_tokens", "model.lm_head"})
      spec_.aliases.emplace_back(name, head);
    for (const auto& alias : family_.aliases) spec_.aliases.push_back(alias);
    for (auto name = family_.hub_names.rbegin(); name != family_.hub_names.rend(); ++name)
      spec_.aliases.emplace_back(name->second, name->first);
  }

  // A family whose models compute as said has one stack of layers.
  void set_forward() {
    if (family_.forward.is(Json::Kind::null)) return;
    ForwardFacts facts;
    facts.section = family_.forward;
    facts.config_path = variant_.config;
    facts.values = values_;
    for (const auto& [name, layers] : stacks_.front().choices) facts.choices[name] = layers;
    facts.layer = family_.stacks.front().path;
    facts.embedding = family_.embedding;
    if (paths_.has_lm_head) facts.lm_head = family_.lm_head;
    facts.prefixes = paths_.prefixes;
    facts.hub_prefixes = paths_.prefixes;
    if (!variant_.saved_as_memory) {
      facts.hub_names = family_.hub_names;
      facts.hub_prefixes = paths_.hub_prefixes.value_or(paths_.prefixes);
    }
    spec_.forward = std::make_shared<const ForwardFacts>(std::move(facts));
  }

  const Family& family_;
  const Variant& variant_;
  std::string where_;
  JsonView top_, nested_;
  std::map<int64_t, JsonView> layer_configs_;
  const ClassPaths& paths_;
  std::optional<JsonView> of_layer_;  // of the layer that is being added
  std::optional<size_t> layer_;       // its number
  Values values_;
  std::vector<PlacedStack> stacks_;
  ModelSpec spec_;
};

// The family of a config's model_type: the last of `more` that has it, else an embedded one.
const Family& family_of(const JsonView& config, const std::vector<Family>& more) {
  const std::string model_type = config.at("model_type").string();
  const std::string architecture = architecture_of(config);
  for (auto it = more.rbegin(); it != more.rend(); ++it)
    if (find_variant(*it, model_type, architecture) != nullptr) return *it;
  if (const Family* family = embedded_family(model_type, architecture)) return *family;
  std::vector<std::string_view> known;
  for (const std::vector<Family>* families : {&more, &embedded_families()})
    for (const Family& family : *families)
      for (const Variant& variant : family.variants)
        if (variant.only.empty()) known.push_back(variant.model_type);
  throw UnknownFamily(
      unknown_word(config.at("model_type").place(), "model type", model_type, known,
                   {"describe the family in a file like those of schemas/models and pass it with ",
                    Option::model_spec, " FILE"}),
      architecture);
}

}  // namespace

ModelSpec make_model_spec(const Json& config, const std::string& where,
                          const std::vector<Family>& more) {
  const JsonView view(config, where);
  const Family& family = family_of(view, more);
  const Variant& variant =
      *find_variant(family, view.at("model_type").string(), architecture_of(view));
  return ModelBuilder(config, where, family, variant).build();
}

std::string loaders_of(const Json& config, const std::string& where,
                       const std::vector<Family>& more) {
  return family_of({config, where}, more).from_loaders;
}

}  // namespace moelora
