#include "tests/adapter/readme_section.h"

#include <doctest/doctest.h>

#include <cstdlib>
#include <fstream>
#include <iterator>
#include <string_view>

namespace moelora {
namespace {

const char* const kReadme = MOELORA_SOURCE_DIR "/README.md";
const char* const kReference = MOELORA_SOURCE_DIR "/REFERENCE.md";
const char* const kResults = MOELORA_SOURCE_DIR "/tests/bench/RESULTS.md";

std::string text_of(const char* path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

bool updating() {
  const char* update = std::getenv("MOELORA_UPDATE");
  return update != nullptr && std::string_view(update) == "1";
}

void check_section(const char* path, const std::string& name, const std::string& expected) {
  std::string text = text_of(path);
  const std::string open = "<!-- " + name + " -->\n";
  const size_t begin = text.find(open);
  REQUIRE(begin != std::string::npos);
  const size_t from = begin + open.size(), end = text.find("<!-- end -->", from);
  REQUIRE(end != std::string::npos);
  if (updating())
    std::ofstream(path, std::ios::binary) << text.replace(from, end - from, expected);
  else
    CHECK(text.substr(from, end - from) == expected);
}

}  // namespace

std::string readme_text() { return text_of(kReadme); }

void check_reference_section(const std::string& name, const std::string& expected) {
  check_section(kReference, name, expected);
}

void check_results_section(const std::string& name, const std::string& expected) {
  check_section(kResults, name, expected);
}

}  // namespace moelora
