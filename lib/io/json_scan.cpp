#include "lib/io/json_scan.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <system_error>
#include <utility>

#include "lib/base/utf8.h"

namespace moelora {
namespace {

using Kind = JsonToken::Kind;

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_control(char c) { return static_cast<unsigned char>(c) < 0x20; }

// The text of a number that from_chars cannot hold: is it too large, or merely next to 0?
bool is_too_large(std::string_view number) {
  int exponent = 0;
  if (const size_t e = number.find_first_of("eE"); e != std::string_view::npos) {
    std::string_view digits = number.substr(e + 1);
    if (digits.starts_with('+')) digits.remove_prefix(1);
    if (std::from_chars(digits.data(), digits.data() + digits.size(), exponent).ec != std::errc())
      return !digits.starts_with('-');
    number = number.substr(0, e);
  }
  if (number.starts_with('-')) number.remove_prefix(1);
  const size_t point = std::min(number.find('.'), number.size());
  const size_t first = number.find_first_not_of("0.");  // exists: 0 would have been held
  return static_cast<int64_t>(point) - static_cast<int64_t>(first) + exponent > 0;
}

class Scanner {
 public:
  Scanner(std::string_view text, int max_depth, JsonHandler& handler)
      : text_(text), max_depth_(max_depth), handler_(handler) {}

  void run() {
    skip_space();
    if (at_ == text_.size()) fail(0, "is empty, expected a JSON value");
    read_value();
    skip_space();
    if (at_ == text_.size()) return;
    const uint64_t rest = at_;
    name_next();
    fail(rest, "unexpected text after the JSON value: {}", in_quotes(text_.substr(rest), 20));
  }

 private:
  // ---- grammar ----

  void read_value() {
    switch (peek()) {
      case '{':
        return read_object();
      case '[':
        return read_array();
      case '"':
        token_.offset = at_;
        lex_string();
        return emit(Kind::string);
      case 't':
      case 'f':
      case 'n':
        return read_literal();
      default:
        if (peek() != '-' && !is_digit(peek())) refuse_next("'[', '{', or a literal");
        token_.offset = at_;
        lex_number();
        return emit(Kind::number);
    }
  }

  void read_object() {
    open(Kind::begin_object);
    if (!take('}')) {
      do {
        read_key();
        read_value();
      } while (take(','));
      if (!take('}')) refuse_next("'}'");
    }
    close(Kind::end_object);
  }

  void read_key() {
    skip_space();
    if (peek() != '"') refuse_next("string literal");
    token_.offset = at_;
    lex_string();
    emit(Kind::key);
    if (!take(':')) refuse_next("':'");
    skip_space();
  }

  void read_array() {
    open(Kind::begin_array);
    if (!take(']')) {
      do {
        skip_space();
        read_value();
      } while (take(','));
      if (!take(']')) refuse_next("']'");
    }
    close(Kind::end_array);
  }

  void read_literal() {
    token_.offset = at_;
    const char first = peek();
    lex_literal();
    token_.boolean = first == 't';
    emit(first == 'n' ? Kind::null : Kind::boolean);
  }

  void open(Kind kind) {
    if (++depth_ > max_depth_)
      throw handler_.error_at(at_, fmt::format("is nested deeper than {} levels", max_depth_),
                              "No tool writes it so deep: get the file again, or flatten it.");
    token_.offset = at_++;
    emit(kind);
  }

  // Its bracket was taken just now.
  void close(Kind kind) {
    --depth_;
    token_.offset = at_ - 1;
    emit(kind);
  }

  void emit(Kind kind) {
    token_.kind = kind;
    if (kind != Kind::string && kind != Kind::key && kind != Kind::number) token_.text.clear();
    handler_.on(token_);
  }

  // ---- tokens ----

  // '\0' at the end of the text too, where no token begins with one.
  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }

  void skip_space() {
    while (peek() == ' ' || peek() == '\n' || peek() == '\r' || peek() == '\t') ++at_;
  }

  bool take(char c) {
    skip_space();
    if (peek() != c) return false;
    ++at_;
    return true;
  }

  std::string_view lex_literal() {
    for (const std::string_view word : {"true", "false", "null"})
      if (text_.substr(at_).starts_with(word)) {
        at_ += word.size();
        return word;
      }
    refuse_python_word();
    fail(at_, "invalid literal");
  }

  void lex_number() {
    const uint64_t begin = at_;
    refuse_python_word();
    if (peek() == '-') ++at_;
    if (peek() == '0')
      ++at_;
    else
      digits(begin, "digit after '-'");
    bool integer = true;
    if (peek() == '.') ++at_, integer = false, digits(begin, "digit after '.'");
    if (peek() == 'e' || peek() == 'E') {
      ++at_;
      integer = false;
      const bool has_sign = peek() == '+' || peek() == '-';
      if (has_sign) ++at_;
      digits(begin, has_sign ? "digit after exponent sign" : "'+', '-', or digit after exponent");
    }
    token_.text = text_.substr(begin, at_ - begin);
    if (!integer || token_.text.size() > 300) check_range(begin);
  }

  void digits(uint64_t number, const char* expected) {
    if (!is_digit(peek())) fail(number, "invalid number, expected {}", expected);
    while (is_digit(peek())) ++at_;
  }

  void check_range(uint64_t begin) const {
    double value = 0;
    const std::string& text = token_.text;
    if (std::from_chars(text.data(), text.data() + text.size(), value).ec != std::errc() &&
        is_too_large(text))
      fail(begin, "the number {} is out of range", printable(text, 24));
  }

  void lex_string() {
    string_begin_ = at_++;
    token_.text.clear();
    while (true) {
      const auto run = std::find_if(text_.begin() + static_cast<std::ptrdiff_t>(at_), text_.end(),
                                    [](char c) { return c == '"' || c == '\\' || is_control(c); });
      const auto end = static_cast<uint64_t>(run - text_.begin());
      token_.text += text_.substr(at_, end - at_);
      at_ = end;
      if (at_ == text_.size()) fail_string(at_, "missing closing quote");
      if (is_control(peek())) refuse_control(peek());
      if (text_[at_++] == '"') return;
      lex_escape();
    }
  }

  void lex_escape() {
    constexpr std::string_view kLetters = "\"\\/bfnrt", kMeant = "\"\\/\b\f\n\r\t";
    const char c = peek();
    if (const size_t i = kLetters.find(c); i != std::string_view::npos) {
      ++at_;
      token_.text += kMeant[i];
    } else if (c == 'u') {
      append_utf8(lex_code_point());
    } else {
      fail_string(at_, "forbidden character after backslash");
    }
  }

  // At the u of \uXXXX, or of the two that make a character beyond U+FFFF.
  uint32_t lex_code_point() {
    const uint32_t high = lex_unit();
    if (high >= 0xDC00 && high <= 0xDFFF)
      fail_string(at_ - 1, "surrogate U+DC00..U+DFFF must follow U+D800..U+DBFF");
    if (high < 0xD800 || high > 0xDFFF) return high;
    constexpr const char* kAlone = "surrogate U+D800..U+DBFF must be followed by U+DC00..U+DFFF";
    if (peek() != '\\') fail_string(at_, kAlone);
    ++at_;
    if (peek() != 'u') fail_string(at_, kAlone);
    const uint32_t low = lex_unit();
    if (low < 0xDC00 || low > 0xDFFF) fail_string(at_ - 1, kAlone);
    return 0x10000 + ((high - 0xD800) << 10U) + (low - 0xDC00);
  }

  uint32_t lex_unit() {
    ++at_;
    uint32_t out = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      uint32_t digit = 0;
      const char c = peek();
      if (std::from_chars(&c, &c + 1, digit, 16).ec != std::errc())
        fail_string(at_, "'\\u' must be followed by 4 hex digits");
      out = out << 4U | digit;
    }
    return out;
  }

  void append_utf8(uint32_t c) {
    const auto byte = [&](uint32_t bits) { token_.text += static_cast<char>(bits); };
    if (c < 0x80) return byte(c);
    const int more = c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    byte((0xFF00U >> (more + 1) & 0xFFU) | c >> (6 * more));
    for (int i = more; i-- > 0;) byte(0x80U | (c >> (6 * i) & 0x3FU));
  }

  // ---- faults ----

  // A token that does not belong here is read whole first: it may have a fault of its own.
  std::string name_next() {
    const char c = peek();
    if (c == '\0') return "end of input";
    if (std::string_view("{}[],:").find(c) != std::string_view::npos) return fmt::format("'{}'", c);
    if (c == '"') return lex_string(), "string literal";
    if (c == '-' || is_digit(c)) return lex_number(), "number literal";
    return fmt::format("{} literal", lex_literal());
  }

  [[noreturn]] void refuse_next(const char* expected) {
    skip_space();
    const uint64_t begin = at_;
    const std::string found = name_next();
    if (begin < text_.size() && text_[begin] == '\0') fail(begin, "a NUL byte between values");
    fail(begin, "unexpected {}, expected {}", found, expected);
  }

  [[noreturn]] void refuse_control(char c) const {
    constexpr std::array<const char*, 32> kNames = {
        "NUL", "SOH", "STX", "ETX", "EOT", "ENQ", "ACK", "BEL", "BS",  "HT",  "LF",
        "VT",  "FF",  "CR",  "SO",  "SI",  "DLE", "DC1", "DC2", "DC3", "DC4", "NAK",
        "SYN", "ETB", "CAN", "EM",  "SUB", "ESC", "FS",  "GS",  "RS",  "US"};
    constexpr std::string_view kShort = "\b\t\n\f\r", kLetter = "btnfr";
    const size_t at = kShort.find(c);
    fail_string(at_, "control character U+{0:04X} ({1}) must be escaped to \\u{0:04X}{2}",
                static_cast<int>(c), kNames[static_cast<size_t>(c)],
                at == std::string_view::npos ? "" : fmt::format(" or \\{}", kLetter[at]));
  }

  void refuse_python_word() const {
    for (const std::string_view word : {"NaN", "Infinity", "-Infinity"})
      if (text_.substr(at_).starts_with(word))
        throw handler_.error_at(at_, fmt::format("{} is not JSON", word),
                                "Python's json.dump writes it; put a number or null in its place.");
  }

  // A string that the end of the text cuts off is named by its begin.
  template <class... T>
  [[noreturn]] void fail_string(uint64_t offset, fmt::format_string<T...> what,
                                T&&... values) const {
    fail(place_of_string_fault(offset), "invalid string: {}",
         fmt::format(what, std::forward<T>(values)...));
  }
  uint64_t place_of_string_fault(uint64_t offset) const {
    return offset < text_.size() ? offset : string_begin_;
  }
  template <class... T>
  [[noreturn]] void fail(uint64_t offset, fmt::format_string<T...> what, T&&... values) const {
    throw handler_.error_at(offset, fmt::format(what, std::forward<T>(values)...));
  }

  std::string_view text_;
  int max_depth_, depth_ = 0;
  JsonHandler& handler_;
  uint64_t at_ = 0, string_begin_ = 0;
  JsonToken token_;
};

}  // namespace

std::string_view kind_name(JsonToken::Kind kind) {
  constexpr std::array<std::string_view, 9> kNames = {"null",     "a boolean", "a number",
                                                      "a string", "a key",     "an array",
                                                      "an array", "an object", "an object"};
  return kNames[static_cast<size_t>(kind)];
}

void scan_json(std::string_view text, int max_depth, JsonHandler& handler) {
  if (text.starts_with("\xEF\xBB\xBF"))
    throw handler.error_at(0, "begins with a byte order mark",
                           "Save the file as UTF-8 without BOM.");
  if (const auto bad = find_invalid_utf8(text))
    throw handler.error_at(*bad, fmt::format("byte 0x{:02x} is not valid UTF-8",
                                             static_cast<unsigned char>(text[*bad])));
  Scanner(text, max_depth, handler).run();
}

}  // namespace moelora
