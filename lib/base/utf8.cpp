#include "lib/base/utf8.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace moelora {
namespace {

struct Decoded {
  char32_t code_point;
  size_t length;  // 0 when the bytes are not UTF-8
};

bool is_continuation(unsigned char byte) { return (byte & 0xC0U) == 0x80U; }

// REQUIRES: text is not empty.
Decoded decode(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {lead, 1};
  const size_t length = lead >= 0xF0 ? 4 : lead >= 0xE0 ? 3 : 2;
  if (lead < 0xC2 || lead > 0xF4 || text.size() < length) return {0, 0};
  char32_t code_point = lead & (0x7FU >> length);
  for (size_t i = 1; i < length; ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (!is_continuation(byte)) return {0, 0};
    code_point = code_point << 6U | (byte & 0x3FU);
  }
  const bool overlong =
      (length == 3 && code_point < 0x800) || (length == 4 && code_point < 0x10000);
  const bool surrogate = code_point >= 0xD800 && code_point <= 0xDFFF;
  return {code_point, overlong || surrogate || code_point > 0x10FFFF ? 0 : length};
}

bool eight_ascii_bytes(std::string_view text) {
  uint64_t word = 0;
  if (text.size() < sizeof word) return false;
  std::memcpy(&word, text.data(), sizeof word);
  return (word & 0x8080808080808080U) == 0;
}

// Controls (C0, DEL, C1) and the marks that change the order of what is shown around them.
bool is_unsafe_on_a_terminal(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c < 0xA0) || c == 0x061C || c == 0x200E || c == 0x200F ||
         (c >= 0x2028 && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF;
}

std::string escaped(std::string_view name, size_t limit) {
  std::string out;
  while (!name.empty()) {
    if (out.size() >= limit) return out + "...";
    const Decoded c = decode(name);
    const size_t length = c.length == 0 ? 1 : c.length;
    if (c.length == 0)
      out += fmt::format("\\x{:02x}", static_cast<unsigned char>(name[0]));
    else if (is_unsafe_on_a_terminal(c.code_point))
      out += fmt::format(fmt::runtime(c.code_point < 0x80 ? "\\x{:02x}" : "\\u{{{:x}}}"),
                         static_cast<uint32_t>(c.code_point));
    else
      out += name.substr(0, length);
    name.remove_prefix(length);
  }
  return out;
}

int count_characters(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) {
    return !is_continuation(static_cast<unsigned char>(c));
  }));
}

}  // namespace

std::optional<uint64_t> find_invalid_utf8(std::string_view text) {
  size_t at = 0;
  while (at < text.size()) {
    if (eight_ascii_bytes(text.substr(at))) {
      at += sizeof(uint64_t);
      continue;
    }
    const size_t length = decode(text.substr(at)).length;
    if (length == 0) return at;
    at += length;
  }
  return std::nullopt;
}

std::optional<std::u32string> decode_utf8(std::string_view text) {
  std::u32string out;
  while (!text.empty()) {
    const Decoded c = decode(text);
    if (c.length == 0) return std::nullopt;
    out += c.code_point;
    text.remove_prefix(c.length);
  }
  return out;
}

std::string printable(std::string_view name, size_t limit) {
  return name.empty() ? "\"\"" : escaped(name, limit);
}

std::string quoted(std::string_view name, size_t limit) { return '"' + escaped(name, limit) + '"'; }

std::string list_some(const std::vector<std::string>& names, size_t most,
                      const std::function<std::string(const std::string&)>& text) {
  std::vector<std::string> shown;
  for (size_t i = 0; i < std::min(names.size(), most); ++i)
    shown.push_back(text ? text(names[i]) : printable(names[i]));
  const std::string rest =
      names.size() > most ? fmt::format(" and {} more", names.size() - most) : "";
  return fmt::format("{}{}", fmt::join(shown, ", "), rest);
}

std::string ranges(const std::vector<int>& sorted) {
  std::string out;
  for (size_t i = 0; i < sorted.size();) {
    size_t end = i + 1;
    while (end < sorted.size() && sorted[end] == sorted[end - 1] + 1) ++end;
    out += fmt::format("{}{}", out.empty() ? "" : ",", sorted[i]);
    if (end - i > 1) out += fmt::format("-{}", sorted[end - 1]);
    i = end;
  }
  return out;
}

std::string text_table(const std::vector<std::vector<std::string>>& rows) {
  std::vector<size_t> width;
  for (const auto& row : rows)
    for (size_t c = 0; c < row.size(); ++c) {
      if (c >= width.size()) width.push_back(0);
      width[c] = std::max(width[c], row[c].size());
    }
  std::string out;
  for (const auto& row : rows) {
    std::string line;
    for (size_t c = 0; c < row.size(); ++c) line += fmt::format("{:<{}}  ", row[c], width[c]);
    line.erase(line.find_last_not_of(' ') + 1);
    out += line + "\n";
  }
  return out;
}

std::string size_text(uint64_t bytes) {
  if (bytes < 1000) return fmt::format("{} bytes", bytes);
  double value = static_cast<double>(bytes);
  const char* unit = "";
  for (const char* next : {"kB", "MB", "GB", "TB"}) {
    unit = next;
    value /= 1000;
    if (value < 1000) break;
  }
  return fmt::format("{:.3g} {}", value, unit);
}

std::string xml_escaped(std::string_view text) {
  constexpr std::string_view kSpecial = "&<>\"";
  constexpr std::array<std::string_view, 4> kNames = {"&amp;", "&lt;", "&gt;", "&quot;"};
  std::string out;
  for (const char c : text) {
    const size_t special = kSpecial.find(c);
    if (special == std::string_view::npos)
      out += c;
    else
      out += kNames[special];
  }
  return out;
}

void TextPosition::advance(uint64_t offset) {
  offset = std::min<uint64_t>(offset, text_.size());
  const std::string_view passed = text_.substr(at_, offset - at_);
  at_ = offset;
  const size_t newline = passed.rfind('\n');
  if (newline == std::string_view::npos) {
    column_ += count_characters(passed);
    return;
  }
  line_ += static_cast<int>(std::count(passed.begin(), passed.end(), '\n'));
  column_ = 1 + count_characters(passed.substr(newline + 1));
}

Location place_in(std::string_view text, uint64_t offset, const std::string& where) {
  TextPosition position(text);
  position.advance(offset);
  return {where, position.line(), position.column(), {}, {}};
}

}  // namespace moelora
