#pragma once

#include <map>
#include <string>

#include "lib/base/tensor.h"
#include "lib/numeric/stats/value_stats.h"

namespace moelora {

// One entry a tensor, by name. Streams: each byte is read once, in blocks of a cache's size, so
// that memory stays bounded (about 1 MB a thread). The result does not depend on `threads` (0: all
// cores). Throws Error when bytes cannot be read.
std::map<std::string, ValueStats> scan_values(const TensorMap& tensors, int threads);

// The coordinates of element `index` (row-major) of a tensor of this shape: {3, 17}.
Shape coordinates(const Shape& shape, int64_t index);

}  // namespace moelora
