#include "lib/adapter/foreign/automodel_stamp.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/base/utf8.h"
#include "lib/io/json.h"

namespace moelora {

void read_automodel_stamp(const AdapterFolder& folder, Links links, AdapterConfig& config,
                          std::vector<std::string>& notes) try {
  const std::string name = "automodel_peft_config.json", key = "paramwrapper_layout";
  if (config.roles || !std::binary_search(folder.listing.begin(), folder.listing.end(), name))
    return;
  const Json json = read_json_file({folder.folder, name, links});
  const Json* word = json.is(Json::Kind::object) ? json.find(key) : nullptr;
  if (word == nullptr || word->is(Json::Kind::null)) return;
  const std::string said(word->is(Json::Kind::string) ? word->as_string() : word->kind_name());
  if (said == "peft-0.19.1")
    config.roles = Roles::natural;
  else if (said == "peft-0.18")
    config.roles = Roles::swapped;
  else
    notes.push_back(fmt::format("{} says {} {}, which is not known here and not used", name, key,
                                in_quotes(said)));
} catch (const MachineError&) {
  throw;
} catch (const Error& error) {  // nothing may need it
  notes.push_back(fmt::format("not used: {}", error.what()));
}

}  // namespace moelora
