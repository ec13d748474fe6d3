#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace moelora {

// Code points first to last; a class is a sorted list of these.
struct CodeRange {
  char32_t first, last;
};
using CodeRanges = std::vector<CodeRange>;

inline bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }
inline bool is_octal(char32_t c) { return c >= '0' && c <= '7'; }
inline bool is_letter(char32_t c) { return c < 128 && (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }
inline bool is_word(char32_t c) { return is_letter(c) || is_digit(c) || c == '_'; }

std::string code_text(char32_t c);  // "\x{2e}", as PCRE2 reads it
std::string ranges_text(const CodeRanges& ranges);

// The characters of a Python regular expression, one after the other: its escapes and classes are
// read as sre_parse reads them and written for PCRE2.
class RegexReader {
 public:
  explicit RegexReader(std::string_view text);

 protected:
  // Errors at the expression: Python refuses it too; or Python would take it.
  [[noreturn]] void invalid(std::string_view why) const;
  [[noreturn]] void unread(std::string_view what) const;

  bool at_end() const { return at_ >= text_.size(); }
  char32_t peek(size_t ahead = 0) const;  // no character's value at the end
  bool take(char32_t c);
  char32_t next(std::string_view missing);  // invalid(missing) at the end
  // The text up to `end`, which is read over.
  std::u32string until(char32_t end, std::string_view missing);

  // The single character that an escape stands for; `c`, after the backslash, is read already.
  char32_t escaped_character(char32_t c, bool in_class);
  char32_t octal(char32_t first, int more);
  // \d \w \s and their opposites; nullopt for any other letter.
  std::optional<CodeRanges> named_class(char32_t letter);
  // The class whose "[" is read.
  std::string bracket();
  // Refuses a letter whose other case Unicode alone knows.
  void check_case(char32_t c) const;

  const std::string original_;
  std::u32string text_;
  size_t at_ = 0;
  bool ignores_case_ = false;
  bool ascii_only_ = false;  // Unicode would make a difference on paths beyond ASCII

 private:
  char32_t hexadecimal(int digits);
  CodeRanges class_item(std::string_view missing);
};

}  // namespace moelora
