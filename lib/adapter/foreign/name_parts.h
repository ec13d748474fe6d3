#pragma once

#include <cstdint>
#include <string_view>

namespace moelora {

// What is common to files that ranks of a training wrote apart.

// Takes `prefix` off the front of `text`; false, and nothing taken, where it does not begin so.
bool take_prefix(std::string_view& text, std::string_view prefix);

// Takes digits off the front, leading zeros among them; -1 for none and for more than nine.
int64_t take_number(std::string_view& text);

// What to do where a file is missing; where files contradict each other.
inline constexpr std::string_view kCopyAllRanks = "copy the files of all ranks into the folder";
inline constexpr std::string_view kCopyOneSave =
    "copy the files of all ranks of one save into the folder";

}  // namespace moelora
