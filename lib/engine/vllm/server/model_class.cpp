#include "lib/engine/vllm/server/model_class.h"

#include <algorithm>

#include "lib/engine/server_class.h"
#include "lib/engine/vllm/releases.h"
#include "lib/engine/vllm/server/class_lists.h"

namespace moelora::vllm {
namespace {

void read_names(const JsonView& json, NameMapper& out) {
  json.allow_only({"substrings", "prefixes", "suffixes"});
  out = {json.string_members("substrings"), json.string_members("prefixes"),
         json.string_members("suffixes")};
}

// The engine's and, on top, the class's own.
void add_kinds(const JsonView& json, LayerKinds& out) {
  json.allow_only({"packed", "row", "replicated", "convolutions"});
  if (const auto packed = json.find("packed"))
    for (const auto& [name, children] : packed->members())
      out.packed.insert_or_assign(name, children.strings());
  const auto append = [&](std::string_view key, std::vector<std::string>& names) {
    for (std::string& name : json.strings_or_none(key)) names.push_back(std::move(name));
  };
  append("row", out.row);
  append("replicated", out.replicated);
  append("convolutions", out.convolutions);
}

ModuleName module_name(const JsonView& json) {
  if (json.json().is(Json::Kind::string)) return {json.string(), json.string()};
  json.allow_only({"name", "linear"});
  return {json.at("name").string(), json.at("linear").string()};
}

// A class as it is in one version: what "releases" says of a key since the newest release that the
// version has, else what the class itself says.
class VersionedClass {
 public:
  VersionedClass(const JsonView& json, const EngineVersion& version) : views_{json} {
    const auto releases = json.find("releases");
    if (!releases) return;
    for (const JsonView& change : releases->items()) {
      change.allow_only({"since", "modules", "experts", "embeddings", "names", "text_prefix"});
      if (version.has(release_of(change.at("since")))) views_.push_back(change);
    }
  }

  // The object that says it; the class's own where none does.
  const JsonView& with(std::string_view key) const {
    for (size_t i = views_.size(); i-- > 0;)
      if (views_[i].find(key)) return views_[i];
    return views_.front();
  }

 private:
  std::vector<JsonView> views_;  // the class, then changes, oldest first
};

void read_experts(const JsonView& json, ModelClass& out) {
  json.allow_only(
      {"path", "prefix", "gate", "up", "down", "is_3d_moe_weight", "interleaved", "named_twice"});
  out.experts = json.at("path").string();
  out.expert_names = {json.string_or_empty("gate"), json.at("up").string(),
                      json.at("down").string()};
  out.expert_prefix = json.string_or_empty("prefix");
  out.stacked = json.is_true("is_3d_moe_weight");
  out.interleaved = json.is_true("interleaved");
  out.experts_named_twice = json.is_true("named_twice");
  if (std::none_of(out.modules.begin(), out.modules.end(),
                   [&](const ModuleName& module) { return module.name == out.experts; }))
    json.at("path").fail("not among the class's modules");
}

using Rows = std::map<std::string, std::vector<Dimension>, std::less<>>;

void read_rows(const JsonView& json, Rows& out) {
  for (const auto& [name, rows] : json.members())
    for (const JsonView& size : rows.items()) out[name].push_back(Dimension::parse(size));
}

// True, or the names of those that it has.
void read_embeddings(const JsonView& json, ModelClass& out) {
  const auto found = json.find("embeddings");
  if (!found) return;
  if (found->json().is(Json::Kind::boolean)) {
    out.embeddings = out.lm_head = json.is_true("embeddings");
    return;
  }
  for (const JsonView& name : found->items())
    (name.one_of({"embed_tokens", "lm_head"}) == 0 ? out.embeddings : out.lm_head) = true;
}

std::string read_error(const JsonView& json) {
  const std::string error = json.string();
  if (error.find(": ") == std::string::npos) json.fail("expected \"TYPE: TEXT\"");
  return error;
}

void read_no_lora(const JsonView& json, const EngineVersion& version, ModelClass& out) {
  json.allow_only({"error", "since", "before"});
  const std::string error = read_error(json.at("error"));
  if (is_in_range(json, version)) out.start_error = error;
}

ModelClass read_class(const JsonView& json, const EngineVersion& version) {
  json.allow_only({"name",
                   "aliases",
                   "families",
                   "note",
                   "read_in",
                   "since",
                   "modules",
                   "outside",
                   "split",
                   "experts",
                   "embeddings",
                   "local_logits",
                   "unwrapped",
                   "skipped",
                   "names",
                   "layers",
                   "slices",
                   "joined",
                   "packs_gate_up_with",
                   "text_prefix",
                   "no_lora",
                   "releases"});
  const VersionedClass now(json, version);
  ModelClass out;
  out.name = json.at("name").string();
  out.where = json.where();
  for (const JsonView& module : now.with("modules").at("modules").items())
    out.modules.push_back(module_name(module));
  if (const auto experts = now.with("experts").find("experts")) read_experts(*experts, out);
  read_embeddings(now.with("embeddings"), out);
  out.read_in = json.strings_or_none("read_in");
  out.outside = json.strings_or_none("outside");
  out.split = json.strings_or_none("split");
  out.local_logits = json.is_true("local_logits");
  out.text_prefix = now.with("text_prefix").string_or_empty("text_prefix");
  out.unwrapped = json.strings_or_none("unwrapped");
  out.skipped = json.strings_or_none("skipped");
  if (const auto names = now.with("names").find("names")) read_names(*names, out.names);
  add_kinds(engine_facts("vllm").at("layers"), out.kinds);
  if (const auto kinds = json.find("layers")) add_kinds(*kinds, out.kinds);
  if (const auto slices = json.find("slices")) read_rows(*slices, out.slices);
  if (const auto joined = json.find("joined")) read_rows(*joined, out.joined);
  out.packs_gate_up_with = json.string_or_empty("packs_gate_up_with");
  if (const auto no_lora = json.find("no_lora"))
    for (const JsonView& range : no_lora->items()) read_no_lora(range, version, out);
  return out;
}

// Whether the class is that of the base, and not another one of its family: a class of the family's
// own file always is.
bool is_of_base(const JsonView& json, const ModelSpec& spec) {
  if (spec.architecture.empty() || spec.engines.find("vllm") != nullptr) return true;
  const std::vector<std::string> aliases = json.strings_or_none("aliases");
  return json.at("name").string() == spec.architecture ||
         std::find(aliases.begin(), aliases.end(), spec.architecture) != aliases.end();
}

// Since 0.33 the config's name of the class is refused, before that the class itself.
std::string refusal_of(const JsonView& json, const EngineVersion& version) {
  if (const auto error = json.find("error")) return read_error(*error);
  const std::string name = json.at("name").string(), own = json.string_or_empty("class");
  return version.has(release("0.33"))
             ? "ValueError: LoRA is not supported for " + name
             : "ValueError: " + (own.empty() ? name : own) + " does not support LoRA yet.";
}

// A class that does not implement SupportsLoRA.
std::optional<ModelClass> class_without_lora(const ModelSpec& spec, const EngineVersion& version) {
  const auto json = entry_of("classes_without_lora", spec);
  if (!json) return std::nullopt;
  json->allow_only({"name", "class", "families", "note", "error", "since", "before"});
  if (!is_in_range(*json, version)) return std::nullopt;
  ModelClass out;
  out.name = json->at("name").string();
  out.where = json->where();
  out.takes_lora = false;
  out.start_error = refusal_of(*json, version);
  return out;
}

}  // namespace

std::string NameMapper::map(std::string name) const {
  for (const auto& [from, to] : substrings)
    if (const size_t at = name.find(from); at != std::string::npos)
      name.replace(at, from.size(), to);
  for (const auto& [from, to] : prefixes)
    if (name.starts_with(from)) name.replace(0, from.size(), to);
  for (const auto& [from, to] : suffixes)
    if (name.ends_with(from)) name.replace(name.size() - from.size(), from.size(), to);
  return name;
}

std::vector<std::string> ExpertNames::all() const {
  if (gate.empty()) return {up, down};
  return {gate, up, down};
}

std::optional<ModelClass> find_model_class(const ModelSpec& spec, const EngineVersion& version) {
  if (auto without = class_without_lora(spec, version)) return without;
  const auto found = find_server_class("vllm", spec);
  if (!found || !is_of_base(*found, spec) || !is_in_range(*found, version)) return std::nullopt;
  ModelClass out = read_class(*found, version);
  // A wrapper whose text model is another one than the class was read with.
  if (out.experts.empty() && spec.experts > 0) return std::nullopt;
  return out;
}

bool is_out_of_registry(const ModelSpec& spec) {
  return entry_of("out_of_registry", spec).has_value();
}

}  // namespace moelora::vllm
