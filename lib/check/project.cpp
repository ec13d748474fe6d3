#include "lib/check/project.h"

#include <filesystem>

#include "lib/model/json_view.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

std::string text(const JsonView& json) {
  if (json.string().find_first_not_of(" \t\n") == std::string::npos) json.fail("is empty");
  return json.string();
}

// Paths are meant from the file's folder, wherever the tool is started.
std::string base_path(const std::string& base, const fs::path& folder) {
  std::error_code ignored;
  return fs::exists(folder / base, ignored) ? (folder / base).string() : base;
}

std::string option(const JsonView& json) {
  if (json.json().is(Json::Kind::boolean)) return json.boolean() ? "on" : "off";
  return json.json().is_number() ? json.json().dump(-1) : text(json);
}

JsonView required(const JsonView& json, const char* key, const char* hint) {
  if (const auto found = json.find(key)) return *found;
  json.fail(std::string("the key \"") + key + "\" is missing", hint);
}

Waiver waiver(const JsonView& json, const fs::path& folder) {
  json.allow_only({"rule", "reason", "adapter"});
  const JsonView rule = required(json, "rule", "write the rule's id or name");
  const JsonView reason = required(json, "reason", "write why the finding can be lived with");
  Waiver out{&rule_named(text(rule), rule.place()), text(reason), "", json.where(),
             folder.string()};
  if (const auto adapter = json.find("adapter")) out.adapter = text(*adapter);
  return out;
}

}  // namespace

Project read_project(const std::string& path) {
  const Json file = read_json_file(path);
  const JsonView json(file, path);
  const fs::path folder = fs::path(path).parent_path();
  json.allow_only({"$schema", "base", "engines", "server_options", "ignore"});
  Project out;
  for (const auto& [key, value] : json.members()) {
    if (key == "base") out.base = base_path(text(value), folder);
    if (key == "engines")
      for (const JsonView& engine : value.items()) out.engines.push_back(text(engine));
    if (key == "server_options")
      for (const auto& [name, option_value] : value.members())
        out.server_options.push_back(name + "=" + option(option_value));
    if (key == "ignore")
      for (const JsonView& ignore : value.items()) out.waivers.push_back(waiver(ignore, folder));
  }
  return out;
}

}  // namespace moelora
