#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace moelora {

// Offset of the first byte that is not part of valid UTF-8 (overlong forms, surrogates and code
// points above U+10FFFF are not); nullopt when all of it is.
std::optional<uint64_t> find_invalid_utf8(std::string_view text);

// A name that came from a file, fit for one line of a terminal: control characters, invalid bytes
// and characters that reorder text become \xNN or \u{NNNN}; what is longer than `limit` bytes is
// cut and ends in "..."; an empty one is "".
std::string printable(std::string_view name, size_t limit = 160);
std::string quoted(std::string_view name, size_t limit = 160);  // the same, always in quotes

}  // namespace moelora
