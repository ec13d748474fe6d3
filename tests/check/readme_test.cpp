// What REFERENCE.md says of rules, and README.md of project files. MOELORA_UPDATE=1 writes the
// table.

#include <doctest/doctest.h>

#include <fstream>

#include "lib/check/ignore.h"
#include "lib/check/report.h"
#include "tests/adapter/readme_section.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

TEST_CASE("REFERENCE.md lists every rule") {
  check_reference_section("rules", list_rules("markdown"));
}

TEST_CASE("README's project file is one that is taken") {
  const std::string readme = readme_text();
  const size_t begin = readme.find("```json\n") + 8, end = readme.find("```", begin);
  REQUIRE(end != std::string::npos);
  const TempFolder folder;
  const std::string path = folder.path() + "/.moelora.json";
  std::ofstream(path, std::ios::binary) << readme.substr(begin, end - begin);
  const Project project = read_project(path);
  CHECK(project.engines == std::vector<std::string>{"sglang@0.5.18"});
  CHECK(project.waivers.size() == 1);
}
