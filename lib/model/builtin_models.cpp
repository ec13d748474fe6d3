#include "lib/model/builtin_models.h"

#include <algorithm>
#include <cctype>

#include "lib/model/embedded_builtins.h"
#include "lib/model/json_view.h"
#include "lib/model/model_spec.h"

namespace moelora {
namespace {

struct Entry {
  std::vector<std::string> names;
  BuiltinModel model;
};

std::vector<Entry> read_entries() {
  std::vector<Entry> out;
  for (const EmbeddedFile& file : embedded_builtin_files()) {
    const std::string where = "schemas/builtin_models/" + file.name + ".json";
    const Json json = parse_json(file.text, where);
    const JsonView view(json, where);
    const auto names = view.at("names").strings();
    out.push_back({names, {names.at(0), where, view.at("config").json()}});
  }
  return out;
}

const std::vector<Entry>& entries() {
  static const std::vector<Entry> all = read_entries();
  return all;
}

bool same_name(const std::string& a, const std::string& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x) == std::tolower(y);
  });
}

}  // namespace

std::optional<BuiltinModel> find_builtin_model(const std::string& name) {
  for (const Entry& entry : entries()) {
    for (const std::string& known : entry.names) {
      if (same_name(known, name)) return entry.model;
    }
  }
  return std::nullopt;
}

std::vector<std::string> builtin_models() {
  std::vector<std::string> out;
  for (const Entry& entry : entries())
    out.insert(out.end(), entry.names.begin(), entry.names.end());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace moelora
