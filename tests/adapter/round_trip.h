#pragma once

#include <string>

#include "lib/adapter/convert.h"

namespace moelora::test {

// Reads written files through their own layout's reader and compares every scale, and every factor
// by its bytes, with what the input was read as. Returns how many factors were compared; throws
// Error at the first that differs. A reader and a writer that err alike pass: that is what the
// packed check (lib/compare/packed_check.h) is for.
int64_t read_back(const Conversion& conversion, AdapterFiles files, const std::string& where);

}  // namespace moelora::test
