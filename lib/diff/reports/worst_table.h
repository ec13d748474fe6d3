#pragma once

#include <string>
#include <string_view>

#include "lib/diff/comparison.h"

namespace moelora {

// Markup of an HTML report: the worst tokens under a heading, with these names of the columns of
// the two sides.
std::string worst_table(const Comparison& comparison, std::string_view a, std::string_view b);

}  // namespace moelora
