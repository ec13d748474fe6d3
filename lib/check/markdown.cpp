#include "lib/check/markdown.h"

#include <algorithm>

namespace moelora {
namespace {

std::string one_line(std::string_view text) {
  std::string out(text);
  std::replace(out.begin(), out.end(), '\n', ' ');
  return out;
}

bool is_word(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// Longest run of backticks in the text: a code span needs one more around it.
size_t longest_run(std::string_view text) {
  size_t longest = 0, run = 0;
  for (const char c : text) {
    run = c == '`' ? run + 1 : 0;
    longest = std::max(longest, run);
  }
  return longest;
}

}  // namespace

std::string md_text(std::string_view text) {
  const std::string line = one_line(text);
  std::string out;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    const bool after = i > 0 && is_word(line[i - 1]);
    const bool inside = after && i + 1 < line.size() && is_word(line[i + 1]);
    const bool special = std::string_view("\\`*_{}[]<>|#~").find(c) != std::string_view::npos;
    if (special && !(c == '_' && inside)) out += '\\';
    out += c;
    // "@name" would call somebody, "http://" and "www." would be links.
    if ((c == '@' && !after) || out.ends_with(":/") || out.ends_with("www.")) out += "<!-- -->";
  }
  return out;
}

std::string md_code(std::string_view text) {
  if (text.empty()) return "";
  const std::string ticks(longest_run(text) + 1, '`');
  const char* space = ticks.size() > 1 ? " " : "";
  std::string inside;
  for (const char c : one_line(text)) inside += c == '|' ? std::string("\\|") : std::string(1, c);
  return ticks + space + inside + space + ticks;
}

}  // namespace moelora
