#pragma once

#include <string_view>

namespace moelora {

// "checkpoint-57" before "checkpoint-114": runs of digits count as numbers.
bool comes_before(std::string_view a, std::string_view b);

}  // namespace moelora
