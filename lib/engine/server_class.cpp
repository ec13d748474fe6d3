#include "lib/engine/server_class.h"

#include <algorithm>
#include <map>
#include <vector>

#include "lib/engine/embedded_engine_facts.h"

namespace moelora {
namespace {

struct EngineFile {
  std::string where;
  Json json;
};
using EngineFiles = std::map<std::string, EngineFile, std::less<>>;

const EngineFiles& engine_files() {
  static const EngineFiles files = [] {
    EngineFiles out;
    for (const auto& [engine, text] : embedded_engine_facts()) {
      const std::string where = "schemas/engines/" + engine + ".json";
      out.emplace(engine, EngineFile{where, parse_json(text, where)});
    }
    return out;
  }();
  return files;
}

using Classes = std::vector<JsonView>;

std::optional<JsonView> named(const Classes& classes, std::string_view name) {
  for (const JsonView& one : classes)
    if (one.at("name").string() == name) return one;
  return std::nullopt;
}

bool lists_family(const JsonView& one, const std::string& family) {
  const std::vector<std::string> all = one.strings_or_none("families");
  return std::find(all.begin(), all.end(), family) != all.end();
}

std::optional<JsonView> class_of_family_file(std::string_view engine, const ModelSpec& spec) {
  if (spec.engines.is(Json::Kind::null)) return std::nullopt;
  const JsonView engines(spec.engines, spec.family_file, "/engines");
  for (const auto& [id, classes] : engines.members())
    if (!engine_files().contains(id)) classes.fail("no engine of this name has model classes");
  const auto mine = engines.find(engine);
  if (!mine) return std::nullopt;
  const Classes classes = mine->items();
  if (classes.empty()) mine->fail("names no class");
  const auto found = named(classes, spec.architecture);
  return found ? found : classes.front();
}

}  // namespace

std::optional<JsonView> find_server_class(std::string_view engine, const ModelSpec& spec) {
  // What a class does with experts depends on more than names and shapes say.
  if (spec.derived) return std::nullopt;
  if (auto found = class_of_family_file(engine, spec)) return found;
  const Classes classes = engine_facts(engine).at("classes").items();
  if (auto found = named(classes, spec.architecture)) return found;
  for (const JsonView& one : classes)
    if (lists_family(one, spec.family)) return one;
  return std::nullopt;
}

JsonView engine_facts(std::string_view engine) {
  const EngineFile& file = engine_files().find(engine)->second;
  return {file.json, file.where};
}

}  // namespace moelora
