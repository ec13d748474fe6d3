#include "tools/page_origin.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <ctime>
#include <string_view>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/check/repair.h"

namespace moelora {
namespace {

constexpr const char* kVariable = "SOURCE_DATE_EPOCH";
constexpr size_t kMostWords = 40;                  // of a command that names hundreds of adapters
constexpr std::time_t kLastSecond = 253402300799;  // of the year 9999

std::string& command() {
  static std::string text;
  return text;
}

std::time_t seconds() {
  const char* set = std::getenv(kVariable);
  if (set == nullptr || *set == '\0') return std::time(nullptr);
  const std::string_view text = set;
  std::time_t out = 0;
  const auto [end, fault] = std::from_chars(text.data(), text.data() + text.size(), out);
  if (fault != std::errc() || end != text.data() + text.size() || out < 0 || out > kLastSecond)
    throw Error(kVariable,
                fmt::format("is {}, expected seconds since 1970 in digits", in_quotes(text)),
                "unset it, or set it to the output of date +%s");
  return out;
}

}  // namespace

void remember_command(int argc, char** argv, const std::string& tool) {
  std::vector<std::string> words = {tool};
  const size_t all = argc > 0 ? static_cast<size_t>(argc) : 1;
  for (size_t i = 1; i < std::min(all, kMostWords); ++i) words.push_back(shell_word(argv[i]));
  if (all > kMostWords) words.push_back(fmt::format("... and {} more words", all - kMostWords));
  command() = fmt::format("{}", fmt::join(words, " "));
}

PageOrigin page_origin(std::string_view format) {
  if (format != "html") return {};
  return {command(), fmt::format("{:%Y-%m-%d %H:%M} UTC", fmt::gmtime(seconds()))};
}

}  // namespace moelora
