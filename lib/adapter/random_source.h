#pragma once

#include <cstdint>
#include <string_view>

#include "lib/base/source.h"

namespace moelora {

// `elements` F32 numbers, uniform in [-bound, bound), each a pure function of seed, name and index:
// the same on every machine, whatever the order or the ranges it is read in.
SourcePtr random_source(uint64_t seed, std::string_view name, int64_t elements, double bound);

}  // namespace moelora
