#pragma once

#include <cstdint>
#include <string_view>

namespace moelora {

// Takes `prefix` off the front of `text`; false, and nothing taken, where it does not begin so.
bool take_prefix(std::string_view& text, std::string_view prefix);

// Takes digits off the front, leading zeros among them; -1 for none and for more than nine.
int64_t take_number(std::string_view& text);

}  // namespace moelora
