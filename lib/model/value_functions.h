#pragma once

#include <string>

#include "lib/model/dimension.h"

namespace moelora {

// What a config value is when its key is absent (or says "auto") and no sum of products tells.
// A family file names one with {"function": NAME}.
bool is_value_function(const std::string& name);

// REQUIRES: is_value_function(name), and `values` has "hidden".
int64_t value_function(const std::string& name, const Values& values);

}  // namespace moelora
