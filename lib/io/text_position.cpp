#include "lib/io/text_position.h"

#include <algorithm>

namespace moelora {
namespace {

int count_characters(std::string_view text) {
  return static_cast<int>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xC0U) != 0x80U;
  }));
}

}  // namespace

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
