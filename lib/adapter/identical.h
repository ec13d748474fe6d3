#pragma once

#include <span>
#include <utility>
#include <vector>

#include "lib/base/tensor.h"

namespace moelora {

// Same dtype, shape and bytes. Equal recipes are recognised without reading.
bool identical(const Tensor& a, const Tensor& b);

// Whether every pair is identical. Stops at the first that is not, looking at one pair before
// reading the rest, since factors that differ mostly differ at once.
bool all_identical(std::span<const std::pair<Tensor, Tensor>> pairs, int threads);

}  // namespace moelora
