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

// A name that came from a file, fit for one line of a terminal: control characters, invalid bytes
// and characters that reorder text become \xNN or \u{NNNN}; what is longer than `limit` bytes is
// cut and ends in "..."; an empty one is "".
std::string printable(std::string_view name, size_t limit = 160);
std::string quoted(std::string_view name, size_t limit = 160);  // the same, always in quotes

// "a, b, c and 4 more", for a message: the first `most` of a list, each as `text` gives it
// (printable).
std::string list_some(const std::vector<std::string>& names, size_t most = 5,
                      const std::function<std::string(const std::string&)>& text = {});

// "0-3,7" of {0,1,2,3,7}.
std::string ranges(const std::vector<int>& sorted);

// Columns aligned, two spaces between; the first row is the heading.
std::string text_table(const std::vector<std::vector<std::string>>& rows);

// "1.26 GB", "469.8 MB", "12 bytes": decimal units.
std::string size_text(uint64_t bytes);

// Text that is safe inside an XML or HTML element or a quoted attribute. XML 1.0 knows no escape
// for most control characters: the text has none of them (printable).
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
