#pragma once

#include <cstddef>

#include "tools/tool.h"

namespace moelora {

// Whether stdout is a terminal that shows colors, and they are wanted (https://no-color.org).
bool wants_color(const CommonOptions& options);

// Its columns; 0 where stdout is no terminal.
size_t terminal_width(const CommonOptions& options);

}  // namespace moelora
