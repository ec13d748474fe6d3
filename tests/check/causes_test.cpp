// Engines name causes, rules explain them: each cause that a header declares is one rule's.

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <regex>
#include <sstream>

using std::filesystem::path;

namespace {

std::string text_of(const path& file) {
  std::stringstream out;
  out << std::ifstream(file).rdbuf();
  return out.str();
}

// How often each first group of `pattern` is in `text`.
void count(const std::string& text, const char* pattern, const std::string& before,
           std::map<std::string, int>& out) {
  const std::regex regex(pattern);
  for (std::sregex_iterator at(text.begin(), text.end(), regex), end; at != end; ++at)
    ++out[before + (*at)[1].str()];
}

std::map<std::string, int> declared(const path& engines) {
  std::map<std::string, int> out;
  count(text_of(engines / "cause.h"), "constexpr Cause (\\w+)", "cause::", out);
  for (const auto& entry : std::filesystem::directory_iterator(engines))
    if (const path file = entry.path() / "causes.h"; exists(file))
      count(text_of(file), "constexpr Cause (\\w+)",
            entry.path().filename().string() + "::cause::", out);
  return out;
}

std::map<std::string, int> explained(const path& rules) {
  std::map<std::string, int> out;
  for (const auto& entry : std::filesystem::directory_iterator(rules))
    count(text_of(entry.path()), "\\.cause = &([\\w:]+)", "", out);
  return out;
}

}  // namespace

TEST_CASE("every cause that an engine can name is explained by exactly one rule") {
  const path lib = path(MOELORA_SOURCE_DIR) / "lib";
  const auto causes = declared(lib / "engine"), rules = explained(lib / "check/rules");
  CHECK(causes.size() > 80);
  CHECK(causes == rules);  // each once
}
