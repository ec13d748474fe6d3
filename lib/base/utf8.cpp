#include "lib/base/utf8.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

namespace moelora {
namespace {

bool is_continuation(unsigned char byte) { return (byte & 0xC0U) == 0x80U; }

// REQUIRES: text is not empty.
CodePoint decode(std::string_view text) {
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

constexpr size_t kLongestCell = 4096;

struct Span {
  char32_t first, last;
};

// What is never shown as it is, in order: controls; marks that reorder the text around them; every
// character that Unicode calls default ignorable (joiners, fillers, variation selectors, tags),
// since what nobody sees can hide in a name; separators of lines; annotations.
constexpr std::array<Span, 21> kUnseen = {
    {{0x00, 0x1F},      {0x7F, 0x9F},       {0xAD, 0xAD},       {0x034F, 0x034F},
     {0x061C, 0x061C},  {0x115F, 0x1160},   {0x17B4, 0x17B5},   {0x180B, 0x180F},
     {0x200B, 0x200F},  {0x2028, 0x202E},   {0x2060, 0x206F},   {0x3164, 0x3164},
     {0xFDD0, 0xFDEF},  {0xFE00, 0xFE0F},   {0xFEFF, 0xFEFF},   {0xFFA0, 0xFFA0},
     {0xFFF0, 0xFFFB},  {0x13430, 0x1343F}, {0x1BCA0, 0x1BCA3}, {0x1D173, 0x1D17A},
     {0xE0000, 0xE0FFF}}};

void add_escape(const CodePoint& c, unsigned char byte, std::string& out) {
  if (c.length == 0)
    out += fmt::format("\\x{:02x}", byte);
  else
    out += fmt::format(fmt::runtime(c.value < 0x80 ? "\\x{:02x}" : "\\u{{{:x}}}"),
                       static_cast<uint32_t>(c.value));
}

std::string escaped(std::string_view name, size_t limit) {
  std::string out;
  while (!name.empty()) {
    if (out.size() >= limit) return out + "...";
    const CodePoint c = decode(name);
    const size_t length = c.length == 0 ? 1 : c.length;
    if (c.length == 0 || !is_seen(c.value))
      add_escape(c, static_cast<unsigned char>(name[0]), out);
    else
      out += name.substr(0, length);
    name.remove_prefix(length);
  }
  return out;
}

// "\x1b[1;31m" at the beginning: what the reports themselves paint with.
size_t color_length(std::string_view text) {
  if (!text.starts_with("\x1b[")) return 0;
  const size_t end = text.find_first_not_of("0123456789;", 2);
  return end != std::string_view::npos && text[end] == 'm' ? end + 1 : 0;
}

// How much of the beginning stands as it is.
size_t length_as_it_is(std::string_view text, bool colors) {
  size_t at = 0;
  while (at < text.size()) {
    const auto byte = static_cast<unsigned char>(text[at]);
    if ((byte >= 0x20 && byte < 0x7F) || byte == '\n') {
      ++at;
      continue;
    }
    const CodePoint c = decode(text.substr(at));
    const size_t length = c.length > 0 && is_seen(c.value) ? c.length
                          : colors                         ? color_length(text.substr(at))
                                                           : 0;
    if (length == 0) break;
    at += length;
  }
  return at;
}

bool is_one_seen_line(std::string_view text) {
  return length_as_it_is(text, false) == text.size() && text.find('\n') == std::string_view::npos;
}

// Blanks of Unicode: a runner that trims a line takes all of them off.
bool is_blank(char32_t c) {
  return c == ' ' || c == '\t' || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) ||
         c == 0x202F || c == 0x205F || c == 0x3000;
}

// Whether "##" begins "##[", "##vso[", "##teamcity[".
bool is_bracket_command(std::string_view text) {
  if (!text.starts_with("##")) return false;
  constexpr auto is_letter = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
  };
  size_t end = 2;
  while (end < text.size() && is_letter(text[end])) ++end;
  return end < text.size() && text[end] == '[';
}

size_t blanks_of(std::string_view line) {
  size_t at = 0;
  while (at < line.size()) {
    const CodePoint c = decode(line.substr(at));
    if (c.length == 0 || !is_blank(c.value)) break;
    at += c.length;
  }
  return at;
}

// The offsets in a line of the characters that make it one or more commands.
std::vector<size_t> commands_in(std::string_view line) {
  std::vector<size_t> out;
  if (const size_t at = blanks_of(line); line.substr(at).starts_with("::")) out.push_back(at);
  for (size_t at = line.find("##"); at != std::string_view::npos; at = line.find("##", at + 1))
    if (is_bracket_command(line.substr(at))) out.push_back(at + 1);
  return out;
}

int count_characters(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) {
    return !is_continuation(static_cast<unsigned char>(c));
  }));
}

}  // namespace

CodePoint first_code_point(std::string_view text) { return decode(text); }

bool is_seen(char32_t c) {
  if (c >= 0x20 && c < 0x7F) return true;
  const auto* span =
      std::lower_bound(kUnseen.begin(), kUnseen.end(), c,
                       [](const Span& s, char32_t wanted) { return s.last < wanted; });
  const bool is_character = (c & 0xFFFEU) != 0xFFFE;
  return is_character && (span == kUnseen.end() || c < span->first);
}

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
    const CodePoint c = decode(text);
    if (c.length == 0) return std::nullopt;
    out += c.value;
    text.remove_prefix(c.length);
  }
  return out;
}

std::string printable(std::string_view name, size_t limit) {
  return name.empty() ? "\"\"" : escaped(name, limit);
}

std::string in_quotes(std::string_view name, size_t limit) {
  return '"' + escaped(name, limit) + '"';
}

std::string printable_lines(std::string text, bool colors) {
  size_t at = length_as_it_is(text, colors);
  if (at == text.size()) return text;
  std::string out;
  for (std::string_view rest = text; !rest.empty(); at = length_as_it_is(rest, colors)) {
    out += rest.substr(0, at);
    rest.remove_prefix(at);
    if (rest.empty()) break;
    const CodePoint c = decode(rest);
    add_escape(c, static_cast<unsigned char>(rest[0]), out);
    rest.remove_prefix(std::max<size_t>(c.length, 1));
  }
  return out;
}

std::string without_commands(std::string text) {
  std::string out;
  size_t copied = 0;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    for (const size_t at : commands_in(std::string_view(text).substr(begin, end - begin))) {
      out += text.substr(copied, begin + at - copied);
      out += fmt::format("\\u{:04x}", static_cast<unsigned char>(text[begin + at]));
      copied = begin + at + 1;
    }
    begin = end + 1;
  }
  if (copied == 0) return text;
  return out + text.substr(copied);
}

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

std::string text_table(std::vector<std::vector<std::string>> rows) {
  std::vector<size_t> width;
  for (auto& row : rows)
    for (std::string& cell : row)
      if (!is_one_seen_line(cell)) cell = escaped(cell, kLongestCell);
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
  for (const char c : printable_lines(std::string(text))) {
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
