#include "lib/model/family.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>
#include <set>

#include "lib/base/error.h"
#include "lib/model/embedded_families.h"

namespace moelora {
namespace {

Dimension parse_dimension(const JsonView& json) {
  if (json.json().is(Json::Kind::boolean)) return Dimension(json.boolean() ? 1 : 0);
  return Dimension::parse(json);
}

Dimension dimension_or_zero(const JsonView& json, std::string_view key) {
  const auto found = json.find(key);
  return found ? parse_dimension(*found) : Dimension();
}

ValueRule parse_value(const std::string& name, const JsonView& json) {
  ValueRule rule;
  rule.name = name;
  if (!json.json().is(Json::Kind::object)) {
    rule.keys = json.one_or_more_strings();
    return rule;
  }
  json.allow_only({"keys", "length", "default", "function", "present", "element", "by_layer",
                   "equals", "top_first"});
  if (const auto present = json.find("present")) rule.present = present->one_or_more_strings();
  rule.top_first = json.is_true("top_first");
  rule.by_layer = json.is_true("by_layer");
  rule.equals = json.string_or_empty("equals");
  if (const auto element = json.find("element"))
    rule.element = static_cast<size_t>(element->integer());
  if (const auto keys = json.find("keys")) rule.keys = keys->one_or_more_strings();
  if (const auto lengths = json.find("length")) rule.lengths = lengths->one_or_more_strings();
  if (const auto otherwise = json.find("default")) rule.otherwise = parse_dimension(*otherwise);
  const auto function = json.find("function");
  if (!function) return rule;
  rule.function = find_value_function(function->string());
  if (rule.function == nullptr)
    function->fail(fmt::format("no function is called \"{}\"", function->string()));
  return rule;
}

Role parse_role(const JsonView& json) {
  // In the order of the enum.
  return static_cast<Role>(
      json.one_of({"attention", "mixer", "dense_mlp", "shared_expert", "shared_expert_gate",
                   "router", "lm_head", "embedding", "expert"}));
}

bool is_hub(const JsonView& form) { return form.one_of({"hub", "memory"}) == 0; }

void parse_forms(const JsonView& json, ModuleBlock& block) {
  if (const auto found = json.find("linear_in")) {
    block.hub_linear = block.memory_linear = false;
    for (const JsonView& form : found->items())
      (is_hub(form) ? block.hub_linear : block.memory_linear) = true;
  }
  if (const auto only = json.find("form")) (is_hub(*only) ? block.in_memory : block.in_hub) = false;
}

ModuleBlock::Linear parse_linear(const std::string& name, const JsonView& json) {
  const auto dims = json.items();
  if (dims.size() != 2)
    json.fail(fmt::format("found {} dimensions, expected [out, in]", dims.size()));
  return {name, parse_dimension(dims[0]), parse_dimension(dims[1])};
}

// "moe", "not moe", "full and not shared".
std::vector<ModuleBlock::Condition> parse_conditions(std::string_view text) {
  constexpr std::string_view kAnd = " and ", kNot = "not ";
  std::vector<ModuleBlock::Condition> out;
  while (!text.empty()) {
    std::string_view word = text.substr(0, text.find(kAnd));
    text.remove_prefix(std::min(text.size(), word.size() + kAnd.size()));
    const bool is_not = word.starts_with(kNot);
    if (is_not) word.remove_prefix(kNot.size());
    out.push_back({std::string(word), is_not});
  }
  return out;
}

ModuleBlock parse_block(const JsonView& json) {
  json.allow_only(
      {"path", "role", "layers", "if", "unless", "bias", "linear_in", "form", "linears"});
  ModuleBlock block;
  block.path = json.at("path").string();
  block.role = parse_role(json.at("role"));
  if ((block.role == Role::expert) != (block.path.find("{expert}") != std::string::npos))
    json.at("path").fail(block.role == Role::expert
                             ? "names no {expert}, but the role is that of experts"
                             : "names an {expert}, but the role is not that of experts");
  block.layers = parse_conditions(json.string_or_empty("layers"));
  block.only_if = json.string_or_empty("if");
  block.unless = json.string_or_empty("unless");
  block.bias = dimension_or_zero(json, "bias");
  parse_forms(json, block);
  for (const auto& [name, dims] : json.at("linears").members())
    block.linears.push_back(parse_linear(name, dims));
  return block;
}

ExpertAxes parse_axes(const JsonView& json) {
  switch (json.one_of({"in_out", "out_in", "rows"})) {
    case 0:
      return ExpertAxes::in_out;
    case 1:
      return ExpertAxes::out_in;
    default:
      return ExpertAxes::rows;
  }
}

// Every storage must have what the experts have, whichever it is written to and read from.
ExpertStorage parse_storage(const JsonView& json, bool gated) {
  json.allow_only({"path", "numbered", "batched", "axes", "gate_up_order"});
  ExpertStorage out = {};
  out.stem = json.at("path").string();
  const auto numbered = json.find("numbered");
  const JsonView names = numbered ? *numbered : json.at("batched");
  if (numbered && json.find("batched")) json.fail("has both \"numbered\" and \"batched\"");
  out.numbered = numbered.has_value();
  names.allow_only({"gate", "up", "gate_up", "down"});
  out.gate = names.string_or_empty("gate");
  out.up = names.string_or_empty("up");
  out.gate_up = names.string_or_empty("gate_up");
  out.down = names.at("down").string();
  if (out.up.empty() == out.gate_up.empty()) names.fail("expected either \"up\" or \"gate_up\"");
  out.axes = out.numbered ? ExpertAxes::out_in : parse_axes(json.at("axes"));
  if (out.axes == ExpertAxes::rows && !out.gate_up.empty())
    json.at("axes").fail("gate and up in one have no rows of one expert in a run",
                         "name \"gate\" and \"up\", each a parameter of its own");
  if (const auto order = json.find("gate_up_order"))
    out.order = order->one_of({"halves", "interleaved"}) == 0 ? GateUpOrder::halves
                                                              : GateUpOrder::interleaved;
  if (gated != (!out.gate.empty() || !out.gate_up.empty()))
    json.fail(gated ? "names no gate, but the experts are gated"
                    : "names a gate, but the experts are not gated",
              "\"gated\": false stands for experts of up and down only");
  return out;
}

std::optional<GateUpOrder> parse_order(const JsonView& json) {
  switch (json.one_of({"halves", "interleaved", "unknown"})) {
    case 0:
      return GateUpOrder::halves;
    case 1:
      return GateUpOrder::interleaved;
    default:
      return std::nullopt;
  }
}

void parse_experts(const JsonView& json, Family& family) {
  json.allow_only({"activation", "gated", "bias", "idle", "gate_up_order", "hub", "memory", "if"});
  family.experts_if = json.string_or_empty("if");
  const JsonView activation = json.at("activation");
  if (activation.json().is(Json::Kind::object)) {
    activation.allow_only({"keys", "default"});
    family.activation_keys = activation.at("keys").one_or_more_strings();
    family.activation = activation.at("default").string();
  } else {
    family.activation = activation.string();
  }
  if (const auto gated = json.find("gated")) family.gated = gated->boolean();
  family.expert_bias = dimension_or_zero(json, "bias");
  family.idle_experts = dimension_or_zero(json, "idle");
  if (const auto order = json.find("gate_up_order")) family.gate_up_order = parse_order(*order);
  family.memory_experts = parse_storage(json.at("memory"), family.gated);
  const auto hub = json.find("hub");
  family.hub_experts = hub ? parse_storage(*hub, family.gated) : family.memory_experts;
}

PeftFacts parse_peft(const JsonView& json) {
  json.allow_only({"converts", "maps", "is_transposed", "numbered", "batched_since", "router_since",
                   "refuses", "unknown"});
  PeftFacts out{.converts = json.is_true("converts"),
                .maps = json.is_true("maps") || json.is_true("converts"),
                .is_transposed = json.is_true("is_transposed"),
                .numbered = json.is_true("numbered"),
                .batched_since = json.string_or_empty("batched_since"),
                .router_since = json.string_or_empty("router_since"),
                .unknown = json.is_true("unknown")};
  if (const auto refuses = json.find("refuses")) out.refuses = refuses->strings();
  return out;
}

ClassPaths parse_paths(const JsonView& json) {
  ClassPaths out;
  out.prefixes = json.string_members("prefixes");
  if (json.find("hub_prefixes")) out.hub_prefixes = json.string_members("hub_prefixes");
  if (const auto head = json.find("lm_head")) out.has_lm_head = head->boolean();
  return out;
}

Variant parse_variant(const std::string& model_type, const JsonView& json, bool gated) {
  json.allow_only({"config", "prefixes", "hub_prefixes", "hub_experts", "lm_head", "only",
                   "architectures", "saved_as_memory", "peft"});
  Variant out;
  out.model_type = model_type;
  if (const auto only = json.find("only")) out.only = only->one_or_more_strings();
  out.config = json.string_or_empty("config");
  out.paths = parse_paths(json);
  if (const auto classes = json.find("architectures"))
    for (const auto& [name, paths] : classes->members()) {
      paths.allow_only({"prefixes", "hub_prefixes", "lm_head"});
      out.classes.emplace(name, parse_paths(paths));
    }
  out.saved_as_memory = json.is_true("saved_as_memory");
  if (const auto hub = json.find("hub_experts")) out.hub_experts = parse_storage(*hub, gated);
  if (const auto peft = json.find("peft")) out.peft = parse_peft(*peft);
  return out;
}

std::string parse_layer_path(const JsonView& json) {
  const std::string& path = json.string();
  const size_t mark = path.find("{layer}");
  if (mark == std::string::npos || mark + 7 != path.size())
    json.fail("found \"" + path + "\", expected a path that ends in {layer}");
  return path;
}

// Of a family with one stack of layers, the family's own keys.
LayerStack parse_stack(const JsonView& json, const std::string& count) {
  LayerStack out;
  out.count = count;
  if (const auto layers = json.find("layers"))
    for (const auto& [name, choice] : layers->members())
      out.choices.emplace(name, LayerChoice::parse(choice));
  out.path = parse_layer_path(json.at("layer"));
  for (const JsonView& block : json.at("modules").items()) out.blocks.push_back(parse_block(block));
  return out;
}

std::vector<LayerStack> parse_stacks(const JsonView& json) {
  const auto stacks = json.find("stacks");
  if (!stacks) return {parse_stack(json, "layers")};
  for (const char* key : {"layer", "layers", "modules", "experts"})
    if (json.find(key))
      json.at(key).fail("stands beside \"stacks\", each of which has its own layers and modules");
  std::vector<LayerStack> out;
  for (const JsonView& stack : stacks->items()) {
    stack.allow_only({"layer", "count", "layers", "modules"});
    out.push_back(parse_stack(stack, stack.at("count").string()));
  }
  if (out.empty()) stacks->fail("found no stack of layers, expected at least one");
  return out;
}

void check_names(const JsonView& json, const std::vector<std::string>& used,
                 const std::set<std::string>& known) {
  for (const std::string& name : used) {
    if (known.count(name) == 0)
      json.fail(fmt::format("no value is called \"{}\"", name), "define it under \"values\"");
  }
}

void check_block(const JsonView& json, const ModuleBlock& block,
                 const std::map<std::string, LayerChoice>& choices,
                 const std::set<std::string>& values) {
  for (const ModuleBlock::Condition& condition : block.layers)
    if (choices.count(condition.choice) == 0)
      json.at("layers").fail(fmt::format("no layer choice is called \"{}\"", condition.choice));
  for (const std::string& name : {block.only_if, block.unless})
    if (!name.empty()) check_names(json, {name}, values);
  check_names(json, block.bias.names(), values);
  if (block.role == Role::expert) check_names(json, {"experts"}, values);
  for (const auto& linear : block.linears) {
    check_names(json.at("linears").at(linear.name), linear.out.names(), values);
    check_names(json.at("linears").at(linear.name), linear.in.names(), values);
  }
}

void check_blocks(const JsonView& list, const std::vector<ModuleBlock>& blocks,
                  const std::map<std::string, LayerChoice>& choices,
                  const std::set<std::string>& values) {
  const auto items = list.items();
  for (size_t i = 0; i < items.size(); ++i) check_block(items[i], blocks[i], choices, values);
}

void check_stack(const JsonView& json, const LayerStack& stack,
                 const std::set<std::string>& values) {
  for (const auto& [name, choice] : stack.choices)
    check_names(json.at("layers").at(name), choice.value_names(), values);
  check_blocks(json.at("modules"), stack.blocks, stack.choices, values);
}

void check_references(const JsonView& json, const Family& family) {
  std::set<std::string> values;
  for (const ValueRule& rule : family.values) {
    if (rule.otherwise)
      check_names(json.at("values").at(rule.name), rule.otherwise->names(), values);
    if (rule.function != nullptr)
      check_names(json.at("values").at(rule.name), rule.function->needs, values);
    values.insert(rule.name);
  }
  check_names(json.at("values"), {"hidden", "vocab"}, values);
  for (const LayerStack& stack : family.stacks)
    check_names(json.at("values"), {stack.count}, values);
  if (family.has_experts)
    check_names(json.at("values"), {"experts", "top_k", "intermediate"}, values);
  if (family.has_experts && family.stacks.front().choices.count("moe") == 0)
    json.at("layers").fail("the choice \"moe\" is missing");
  if (!family.experts_if.empty()) check_names(json.at("experts"), {family.experts_if}, values);
  if (family.has_experts) check_names(json.at("experts"), family.idle_experts.names(), values);
  if (family.lm_head_rows) check_names(json, family.lm_head_rows->names(), values);
  const auto stacks = json.find("stacks");
  for (size_t i = 0; i < family.stacks.size(); ++i)
    check_stack(stacks ? stacks->items()[i] : json, family.stacks[i], values);
  if (const auto outside = json.find("outside")) check_blocks(*outside, family.outside, {}, values);
}

}  // namespace

Family parse_family(const Json& document, const std::string& where) {
  const JsonView json(document, where);
  json.allow_only(
      {"$schema", "family",    "note",    "from_loaders", "model_types",  "values",  "layers",
       "layer",   "embedding", "lm_head", "lm_head_bias", "lm_head_rows", "modules", "outside",
       "experts", "hub_names", "aliases", "engines",      "per_layer",    "stacks",  "forward"});
  Family family;
  family.where = where;
  family.name = json.at("family").string();
  family.from_loaders = json.string_or_empty("from_loaders");
  const auto experts = json.find("experts");
  family.has_experts = experts.has_value();
  if (experts) parse_experts(*experts, family);
  for (const auto& [type, variant] : json.at("model_types").members())
    family.variants.push_back(parse_variant(type, variant, family.gated));
  for (const auto& [name, value] : json.at("values").members())
    family.values.push_back(parse_value(name, value));
  family.stacks = parse_stacks(json);
  family.embedding = json.at("embedding").string();
  family.lm_head = json.at("lm_head").string();
  family.lm_head_bias = dimension_or_zero(json, "lm_head_bias");
  if (const auto rows = json.find("lm_head_rows")) family.lm_head_rows = parse_dimension(*rows);
  if (const auto outside = json.find("outside"))
    for (const JsonView& block : outside->items()) family.outside.push_back(parse_block(block));
  if (const auto keys = json.find("per_layer")) family.per_layer = keys->one_or_more_strings();
  family.hub_names = json.string_members("hub_names");
  family.aliases = json.string_members("aliases");
  if (const auto engines = json.find("engines")) {
    for (const auto& [engine, classes] : engines->members()) classes.items();  // lists
    family.engines = engines->json();
  }
  if (const auto forward = json.find("forward")) {
    forward->members();  // an object; lib/forward reads its keys, and refuses others
    if (json.find("stacks")) forward->fail("is known for families of one stack of layers alone");
    family.forward = forward->json();
  }
  check_references(json, family);
  return family;
}

UnknownFamily::UnknownFamily(const Error& error, std::string architecture_)
    : Error(error), architecture(std::move(architecture_)) {}

namespace {

Family parse_embedded(const std::string& name, const std::string& text) {
  const std::string where = "schemas/models/" + name + ".json";
  return parse_family(parse_json(text, where), where);
}

}  // namespace

const Variant* find_variant(const Family& family, const std::string& model_type,
                            const std::string& architecture) {
  for (const Variant& variant : family.variants)
    if (variant.model_type == model_type &&
        (variant.only.empty() ||
         std::find(variant.only.begin(), variant.only.end(), architecture) != variant.only.end()))
      return &variant;
  return nullptr;
}

namespace {

std::optional<Family> find_embedded(const std::string& model_type,
                                    const std::string& architecture) {
  std::optional<Family> out;
  for (const auto& [name, text] : embedded_family_files()) {
    if (text.find(json_string(model_type)) == std::string::npos) continue;
    Family family = parse_embedded(name, text);
    const Variant* variant = find_variant(family, model_type, architecture);
    if (variant == nullptr) continue;
    const bool is_its_own = !variant->only.empty();
    if (is_its_own || !out) out = std::move(family);
    if (is_its_own) break;
  }
  return out;
}

}  // namespace

const Family* embedded_family(const std::string& model_type, const std::string& architecture) {
  static std::mutex mutex;
  static std::map<std::pair<std::string, std::string>, std::optional<Family>> known;
  const std::lock_guard lock(mutex);
  const auto [at, is_new] = known.try_emplace({model_type, architecture});
  if (is_new) at->second = find_embedded(model_type, architecture);
  return at->second ? &*at->second : nullptr;
}

const std::vector<Family>& embedded_families() {
  static const std::vector<Family> families = [] {
    std::vector<Family> out;
    for (const auto& [name, text] : embedded_family_files())
      out.push_back(parse_embedded(name, text));
    std::sort(out.begin(), out.end(),
              [](const Family& a, const Family& b) { return a.name < b.name; });
    return out;
  }();
  return families;
}

}  // namespace moelora
