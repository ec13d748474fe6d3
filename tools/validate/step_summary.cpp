#include "tools/validate/step_summary.h"

#include <cstdio>
#include <cstdlib>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

constexpr size_t kMost = 1 << 20;

std::string cut_to(std::string text, size_t room) {
  if (text.size() <= room) return text;
  const std::string more = "\nThe summary is cut here: the step's log has all.\n";
  if (room < more.size()) return "";
  const size_t line = text.rfind('\n', room - more.size());
  text.resize(line == std::string::npos ? 0 : line + 1);
  return text + more;
}

}  // namespace

void append_step_summary(const std::string& markdown) {
  const char* path = std::getenv("GITHUB_STEP_SUMMARY");
  if (path == nullptr || *path == '\0') return;
  std::FILE* out = std::fopen(path, "abe");
  if (out == nullptr) throw Error(path, "cannot be written", "it is $GITHUB_STEP_SUMMARY");
  std::fseek(out, 0, SEEK_END);
  const long there = std::ftell(out);
  const size_t used = there < 0 ? 0 : static_cast<size_t>(there);
  const std::string text = cut_to(printable_lines(markdown), used < kMost ? kMost - used : 0);
  const bool written = std::fwrite(text.data(), 1, text.size(), out) == text.size();
  if (std::fclose(out) != 0 || !written) throw Error(path, "could not be written completely");
}

}  // namespace moelora
