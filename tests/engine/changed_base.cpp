#include "tests/engine/changed_base.h"

#include <filesystem>

#include "lib/io/json.h"
#include "tests/io/golden_text.h"

namespace moelora::test {

std::string changed_base(const TempFolder& temp, const std::string& family,
                         const std::string& values) {
  Json config = read_json_file(MOELORA_TEST_DATA "/families/" + family + "/config.json");
  const Json changes = parse_json(values, "changes");
  for (const auto& [key, value] : changes.members()) config.set(key, value);
  std::filesystem::create_directories(temp.path + "/" + family);
  write_text(temp.path + "/" + family + "/config.json", config.dump(2));
  return temp.path + "/" + family;
}

std::string architecture(const std::string& name) {
  return "{\"architectures\": [\"" + name + "\"]}";
}

}  // namespace moelora::test
