#include "tests/adapter/readme_section.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string_view>

namespace moelora {
namespace {

const char* const kPath = MOELORA_SOURCE_DIR "/README.md";

bool updating() {
  const char* update = std::getenv("MOELORA_UPDATE");
  return update != nullptr && std::string_view(update) == "1";
}

}  // namespace

std::string readme_text() {
  std::ifstream file(kPath, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void check_readme_section(const std::string& name, const std::string& expected) {
  std::string text = readme_text();
  const std::string open = "<!-- " + name + " -->\n";
  const size_t begin = text.find(open);
  REQUIRE(begin != std::string::npos);
  const size_t from = begin + open.size(), end = text.find("<!-- end -->", from);
  REQUIRE(end != std::string::npos);
  if (updating())
    std::ofstream(kPath, std::ios::binary) << text.replace(from, end - from, expected);
  else
    CHECK(text.substr(from, end - from) == expected);
}

}  // namespace moelora
