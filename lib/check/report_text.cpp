#include "lib/check/report_text.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/base/utf8.h"

namespace moelora {
namespace {

std::string on_one_line(std::string_view text) {
  std::string out(text);
  std::replace(out.begin(), out.end(), '\n', ' ');
  return printable_lines(std::move(out));
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

std::string one_line(std::string_view text) {
  return text.empty() ? std::string() : printable(text, kLongestLine);
}

std::string printed_lines(std::string_view text) {
  std::string out(text);
  std::erase(out, '\t');
  return printable_lines(std::move(out));
}

std::string rule_title(const Finding& finding) {
  return fmt::format("{} {}", finding.rule->id, finding.rule->name);
}

std::string where_text(const Finding& finding, size_t most) {
  const size_t all = finding.names.size(), count = std::min(all, most);
  if (count < 2)
    return one_line(finding.where) + (all > 1 ? fmt::format(" and {} more", all - 1) : "");
  return list_some(finding.names, count, [](const std::string& name) { return one_line(name); });
}

std::string finding_line(const Finding& finding, size_t most) {
  const std::string where = where_text(finding, most);
  return where.empty() ? one_line(finding.message) : where + ": " + one_line(finding.message);
}

std::string wrapped(std::string_view text, size_t width, size_t indent) {
  if (width <= indent || width == 0) return std::string(text);
  std::string out;
  size_t column = indent;
  while (!text.empty()) {
    const std::string_view word = text.substr(0, text.find(' '));
    text.remove_prefix(std::min(text.size(), word.size() + 1));
    if (column > indent && column + 1 + word.size() > width) {
      out += "\n" + std::string(indent, ' ');
      column = indent;
    } else if (column > indent) {
      out += ' ';
      ++column;
    }
    out += word;
    column += word.size();
  }
  return out;
}

std::string md_text(std::string_view text) {
  const std::string line = on_one_line(text);
  std::string out;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    const bool after = i > 0 && is_word(line[i - 1]);
    const bool inside = after && i + 1 < line.size() && is_word(line[i + 1]);
    const bool special = std::string_view("\\`*_{}[]<>|#~&").find(c) != std::string_view::npos;
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
  for (const char c : on_one_line(text))
    inside += c == '|' ? std::string("\\|") : std::string(1, c);
  return ticks + space + inside + space + ticks;
}

}  // namespace moelora
