#include "lib/base/python_characters.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "lib/base/error.h"

namespace moelora {
namespace {

constexpr char32_t kLastCode = 0x10FFFF, kEndOfText = kLastCode + 1;

// What str.isdecimal, isalnum or "_", and isspace say of ASCII.
const std::map<char32_t, CodeRanges> kClasses = {
    {'d', {{'0', '9'}}},
    {'w', {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}}},
    {'s', {{9, 13}, {28, 32}}},
};

const std::map<char32_t, char32_t> kControls = {{'a', 7}, {'f', 12}, {'n', 10},   {'r', 13},
                                                {'t', 9}, {'v', 11}, {'\\', '\\'}};

CodeRanges complement(const CodeRanges& ranges) {
  CodeRanges out;
  char32_t next = 0;
  for (const CodeRange& range : ranges) {
    if (range.first > next) out.push_back({next, range.first - 1});
    next = range.last + 1;
  }
  out.push_back({next, kLastCode});
  return out;
}

bool is_hex(char32_t c) { return is_digit(c) || (is_letter(c) && (c | 0x20) <= 'f'); }

bool is_single(const CodeRanges& ranges) {
  return ranges.size() == 1 && ranges[0].first == ranges[0].last;
}

// UTF-8 to code points; nullopt where it is malformed.
std::optional<std::u32string> decode(std::string_view text) {
  std::u32string out;
  for (size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    const size_t more = lead < 0x80 ? 0 : lead < 0xC0 ? 4 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
    if (more == 4 || lead >= 0xF8 || i + more >= text.size()) return std::nullopt;
    char32_t c = more == 0 ? lead : lead & (0x3FU >> more);
    for (size_t k = 1; k <= more; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xC0) != 0x80) return std::nullopt;
      c = c << 6 | (next & 0x3F);
    }
    out.push_back(c);
    i += more + 1;
  }
  return out;
}

}  // namespace

std::string code_text(char32_t c) { return fmt::format("\\x{{{:x}}}", static_cast<uint32_t>(c)); }

std::string ranges_text(const CodeRanges& ranges) {
  std::string out;
  for (const CodeRange& range : ranges)
    out += range.first == range.last ? code_text(range.first)
                                     : code_text(range.first) + "-" + code_text(range.last);
  return out;
}

RegexReader::RegexReader(std::string_view text) : original_(text) {
  const auto decoded = decode(text);
  if (!decoded) invalid("it is not UTF-8");
  text_ = *decoded;
}

void RegexReader::invalid(std::string_view why) const {
  throw Error(original_, fmt::format("is not a valid regular expression: {}", why),
              "write it as Python's re reads it");
}
void RegexReader::unread(std::string_view what) const {
  throw Error(original_, fmt::format("{} is not evaluated here", what),
              "write the expression without it");
}

char32_t RegexReader::peek(size_t ahead) const {
  return at_ + ahead < text_.size() ? text_[at_ + ahead] : kEndOfText;
}
bool RegexReader::take(char32_t c) {
  if (peek() != c) return false;
  ++at_;
  return true;
}
char32_t RegexReader::next(std::string_view missing) {
  if (at_ >= text_.size()) invalid(missing);
  return text_[at_++];
}
// The text up to `end`, which is read over.
std::u32string RegexReader::until(char32_t end, std::string_view missing) {
  const size_t found = text_.find(end, at_);
  if (found == std::u32string::npos) invalid(missing);
  const std::u32string out = text_.substr(at_, found - at_);
  at_ = found + 1;
  return out;
}

std::optional<CodeRanges> RegexReader::named_class(char32_t letter) {
  const auto found = kClasses.find(letter < 128 ? letter | 0x20 : letter);
  if (found == kClasses.end() || !is_letter(letter)) return std::nullopt;
  ascii_only_ = true;
  return letter == found->first ? found->second : complement(found->second);
}

char32_t RegexReader::octal(char32_t first, int more) {
  char32_t out = first - '0';
  for (; more > 0 && is_octal(peek()); --more) out = out * 8 + (text_[at_++] - '0');
  if (out > 0377) invalid("an octal escape beyond \\377");
  return out;
}

char32_t RegexReader::hexadecimal(int digits) {
  char32_t out = 0;
  for (int i = 0; i < digits; ++i) {
    const char32_t c = next("an incomplete escape");
    if (!is_hex(c)) invalid("an incomplete escape");
    out = out * 16 + (is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
  }
  if (out > kLastCode) invalid("an escape beyond the last character");
  if (out >= 0xD800 && out < 0xE000) unread("a surrogate");
  return out;
}

char32_t RegexReader::escaped_character(char32_t c, bool in_class) {
  if (const auto found = kControls.find(c); found != kControls.end()) return found->second;
  if (c == 'b' && in_class) return 8;
  if (c == 'x') return hexadecimal(2);
  if (c == 'u') return hexadecimal(4);
  if (c == 'U') return hexadecimal(8);
  if (c == 'N' && peek() == '{') unread("\\N{NAME}");
  if (c == '0' || (in_class && is_octal(c))) return octal(c, 2);
  if (is_letter(c) || is_digit(c)) invalid(fmt::format("bad escape \\{}", static_cast<char>(c)));
  return c;
}

void RegexReader::check_case(char32_t c) const {
  if (ignores_case_ && c > 127) unread("ignoring the case of letters beyond ASCII");
}

std::string RegexReader::bracket() {
  constexpr std::string_view kMissing = "unterminated character set";
  std::string out = take('^') ? "[^" : "[";
  for (bool first = true; first || !take(']'); first = false) {
    const CodeRanges low = class_item(kMissing);
    if (peek() != '-' || peek(1) == ']') {
      out += ranges_text(low);
      if (take('-')) out += code_text('-');
      continue;
    }
    ++at_;
    const CodeRanges high = class_item(kMissing);
    if (!is_single(low) || !is_single(high) || high[0].first < low[0].first)
      invalid("bad character range");
    out += ranges_text({{low[0].first, high[0].first}});
    check_case(high[0].first);
  }
  return out + "]";
}

// A character is a range of one; \d and its like are more.
CodeRanges RegexReader::class_item(std::string_view missing) {
  char32_t c = next(missing);
  if (c == '\\') {
    c = next("it ends in a backslash");
    if (const auto ranges = named_class(c)) return *ranges;
    c = escaped_character(c, true);
  }
  check_case(c);
  return {{c, c}};
}

}  // namespace moelora
