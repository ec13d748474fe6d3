#include "lib/engine/vllm/server/model_class.h"

#include <algorithm>

#include "lib/engine/server_class.h"
#include "lib/engine/vllm/releases.h"

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

void read_experts(const JsonView& json, ModelClass& out) {
  json.allow_only({"path", "gate", "up", "down", "is_3d_moe_weight", "interleaved"});
  out.experts = json.at("path").string();
  out.expert_names = {json.string_or_empty("gate"), json.at("up").string(),
                      json.at("down").string()};
  out.stacked = json.is_true("is_3d_moe_weight");
  out.interleaved = json.is_true("interleaved");
  if (std::none_of(out.modules.begin(), out.modules.end(),
                   [&](const ModuleName& module) { return module.name == out.experts; }))
    json.at("path").fail("not among the class's modules");
}

void read_slices(const JsonView& json, ModelClass& out) {
  for (const auto& [name, rows] : json.members())
    for (const JsonView& size : rows.items()) out.slices[name].push_back(Dimension::parse(size));
}

void read_no_lora(const JsonView& json, ModelClass& out) {
  json.allow_only({"error", "before"});
  out.start_error = json.at("error").string();
  if (out.start_error.find(": ") == std::string::npos)
    json.at("error").fail("expected \"TYPE: TEXT\"");
  const auto before = json.find("before");
  if (!before) return;
  out.starts_since = find_release(before->string());
  if (out.starts_since == nullptr) before->fail("not a release of vLLM that this tool knows");
}

ModelClass read_class(const JsonView& json) {
  json.allow_only({"name", "families", "note", "modules", "experts", "embeddings", "unwrapped",
                   "skipped", "names", "layers", "slices", "packs_gate_up_with", "no_lora"});
  ModelClass out;
  out.name = json.at("name").string();
  out.where = json.where();
  for (const JsonView& module : json.at("modules").items())
    out.modules.push_back(module_name(module));
  read_experts(json.at("experts"), out);
  out.embeddings = json.is_true("embeddings");
  out.unwrapped = json.strings_or_none("unwrapped");
  out.skipped = json.strings_or_none("skipped");
  if (const auto names = json.find("names")) read_names(*names, out.names);
  add_kinds(engine_facts("vllm").at("layers"), out.kinds);
  if (const auto kinds = json.find("layers")) add_kinds(*kinds, out.kinds);
  if (const auto slices = json.find("slices")) read_slices(*slices, out);
  out.packs_gate_up_with = json.string_or_empty("packs_gate_up_with");
  if (const auto no_lora = json.find("no_lora")) read_no_lora(*no_lora, out);
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

std::optional<ModelClass> find_model_class(const ModelSpec& spec) {
  const auto found = find_server_class("vllm", spec);
  return found ? std::optional(read_class(*found)) : std::nullopt;
}

}  // namespace moelora::vllm
