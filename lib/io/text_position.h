#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/base/error.h"

namespace moelora {

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
