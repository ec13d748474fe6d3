#pragma once

#include <cstddef>

#include "tools/tool.h"

namespace moelora {

// Whether a CI's runner reads what is printed: CI, GITHUB_ACTIONS, TF_BUILD or TEAMCITY_VERSION is
// set.
bool in_ci();

// Whether stdout is a terminal that shows colors, and they are wanted (https://no-color.org).
bool wants_color(const CommonOptions& options);

// The same, for pictures of colored blocks: never in a CI.
bool wants_blocks(const CommonOptions& options);

// Its columns; 0 where stdout is no terminal.
size_t terminal_width(const CommonOptions& options);

}  // namespace moelora
