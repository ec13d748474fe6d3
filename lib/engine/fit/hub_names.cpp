#include "lib/engine/fit/hub_names.h"

#include <fmt/core.h>

#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

class Names {
 public:
  explicit Names(const std::map<std::string, std::string>& names) : names_(names) {
    for (const auto& [from, to] : names)
      if (leaf_of(from) != leaf_of(to)) leaves_.emplace(leaf_of(from), leaf_of(to));
  }

  // Of a module or parameter; itself where it keeps its name.
  std::string of(const std::string& path) const {
    if (const auto at = names_.find(path); at != names_.end()) return at->second;
    for (size_t end = path.rfind('.'); end != std::string::npos && end > 0;
         end = path.rfind('.', end - 1))
      if (const auto at = names_.find(path.substr(0, end)); at != names_.end())
        return at->second + path.substr(end);
    return path;
  }

  // Of an entry of target_modules, which may be the end of a path.
  std::string target(const std::string& entry) const {
    if (std::string whole = of(entry); whole != entry) return whole;
    const auto at = leaves_.find(std::string(leaf_of(entry)));
    return at == leaves_.end() ? entry : at->second;
  }

 private:
  const std::map<std::string, std::string>& names_;
  std::map<std::string, std::string> leaves_;
};

void rename_targets(const Names& names, Json& config) {
  for (const char* key : {"target_modules", "target_parameters", "exclude_modules"}) {
    const Json* old = config.find(key);
    if (old == nullptr || !old->is(Json::Kind::array)) continue;
    std::vector<std::string> entries;
    for (const Json& entry : old->items())
      if (entry.is(Json::Kind::string)) entries.push_back(names.target(entry.as_string()));
    config.set(key, Json::strings(entries));
  }
}

}  // namespace

void rename_modules(const std::map<std::string, std::string>& by_module, Conversion& c) {
  if (by_module.empty()) return;
  const Names names(by_module);
  TensorMap tensors;
  std::vector<std::string> renamed;
  for (auto& [name, tensor] : c.tensors) {
    const std::string module = parse_tensor_name(name).module, own = names.of(module);
    std::string to = name;
    if (own != module) to.replace(name.find(module), module.size(), own);
    if (own != module) renamed.push_back(own);
    tensors.emplace(std::move(to), std::move(tensor));
  }
  if (renamed.empty()) return;
  c.tensors = std::move(tensors);
  rename_targets(names, c.config);
  c.notes.push_back(fmt::format(
      "modules have the names of the hub's files, by which alone the server finds them: {}",
      some_of(renamed)));
}

}  // namespace moelora::fit
