#pragma once

#include <string>

#include "lib/diff/comparison.h"

namespace moelora {

// One page with four charts as inline SVG: no script, nothing loaded.
std::string comparison_html(const Comparison& comparison);

}  // namespace moelora
