#pragma once

#include <string>

#include "tests/adapter/goldens.h"

namespace moelora::test {

// The folder of a base of tests/data/families with other values in its config, below `temp`.
std::string changed_base(const TempFolder& temp, const std::string& family,
                         const std::string& values);

// The values of a base under another architecture.
std::string architecture(const std::string& name);

}  // namespace moelora::test
