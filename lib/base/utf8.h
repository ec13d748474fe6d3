#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/error.h"

namespace moelora {

// Offset of the first byte that is not part of valid UTF-8 (overlong forms, surrogates and code
// points above U+10FFFF are not); nullopt when all of it is.
std::optional<uint64_t> find_invalid_utf8(std::string_view text);

// The code points of `text`; nullopt where it is not valid UTF-8.
std::optional<std::u32string> decode_utf8(std::string_view text);

struct CodePoint {
  char32_t value;
  size_t length;  // in bytes; 0 when they are not UTF-8
};
CodePoint first_code_point(std::string_view text);  // REQUIRES: text is not empty

// ---- Text from files is data. All that is printed has come through here: names where they are put
// into a message, and the whole once more where it is written (tools/tool.cpp).

// Whether a reader sees that this character is there and nothing else changes by it. Controls,
// marks that reorder text, joiners and other zero-width characters, tags, U+2028 and such are not.
bool is_seen(char32_t c);

// A name that came from a file, fit for one line of a terminal: what is not seen and bytes of no
// UTF-8 become \xNN or \u{NNNN}; what is longer than `limit` bytes is cut and ends in "..."; an
// empty one is "".
std::string printable(std::string_view name, size_t limit = 160);
inline constexpr size_t kLongestLine = 1 << 14;                    // the limit of a whole message
std::string in_quotes(std::string_view name, size_t limit = 160);  // the same, always in quotes

// The same of a whole text, uncut, with its line breaks. `colors`: "\x1b[1;31m" stays too; the
// names in it have been through printable().
std::string printable_lines(std::string text, bool colors = false);

// Without what a CI takes for a command: GitHub "::name" at the beginning of a line, blanks before
// it or not, and it, Azure and TeamCity "##[", "##vso[", "##teamcity[" anywhere in one. One
// character of each becomes \u003a or \u0023: who parses JSON reads what was there. REQUIRES:
// printable.
std::string without_commands(std::string text);

// "a, b, c and 4 more", for a message: the first `most` of a list, each as `text` gives it
// (printable).
std::string list_some(const std::vector<std::string>& names, size_t most = 5,
                      const std::function<std::string(const std::string&)>& text = {});

// "0-3,7" of {0,1,2,3,7}.
std::string ranges(const std::vector<int>& sorted);

// Columns aligned, two spaces between; the first row is the heading. Cells are printable.
std::string text_table(std::vector<std::vector<std::string>> rows);

// "1.26 GB", "469.8 MB", "12 bytes": decimal units.
std::string size_text(uint64_t bytes);

// Text that is safe inside an XML or HTML element or a quoted attribute; XML 1.0 knows no escape
// for most control characters, so it is printable_lines too.
std::string xml_escaped(std::string_view text);

// Line and column of offsets that only grow, in one pass over the text. Both are 1-based; a column
// counts characters, not bytes, as editors do.
class TextPosition {
 public:
  explicit TextPosition(std::string_view text) : text_(text) {}

  // REQUIRES: offset is not below that of the last call; beyond the text is its end.
  void advance(uint64_t offset);

  int line() const { return line_; }
  int column() const { return column_; }

 private:
  std::string_view text_;
  uint64_t at_ = 0;
  int line_ = 1, column_ = 1;
};

// Where `offset` of the text of file `where` is.
Location place_in(std::string_view text, uint64_t offset, const std::string& where);

}  // namespace moelora
