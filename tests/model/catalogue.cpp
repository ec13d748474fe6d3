#include "tests/model/catalogue.h"

#include <algorithm>
#include <filesystem>

#include "lib/io/json.h"

namespace {

using moelora::Json;

moelora::Shape shape_of(const Json& json) {
  moelora::Shape out;
  for (const Json& item : json.items()) out.push_back(item.as_int());
  return out;
}

std::vector<std::string> names_in(const std::string& folder) {
  std::vector<std::string> out;
  for (const auto& entry : std::filesystem::directory_iterator(folder))
    out.push_back(entry.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

CatalogueEntry entry_in(const std::string& folder) {
  CatalogueEntry out;
  out.config = folder + "/config.json";
  const Json names = moelora::read_json_file(folder + "/names.json");
  for (const auto& [name, value] : names.find("saved")->members())
    out.saved[name] = shape_of(value.items()[1]);
  for (const auto& [name, value] : names.find("memory")->members())
    out.memory[name] = shape_of(value);
  for (const Json& item : names.find("linear_modules")->items())
    out.linear_names.push_back(item.as_string());
  for (const auto& [name, value] : names.find("module_classes")->members())
    out.classes[name] = value.as_string();
  return out;
}

const std::string kFirst = MOELORA_TEST_DATA "/catalogue", kLater = MOELORA_TEST_DATA "/families";

}  // namespace

std::vector<std::string> catalogue_families() { return names_in(kFirst); }
CatalogueEntry catalogue_entry(const std::string& family) {
  return entry_in(kFirst + "/" + family);
}
std::vector<std::string> later_families() { return names_in(kLater); }
CatalogueEntry later_entry(const std::string& family) { return entry_in(kLater + "/" + family); }
