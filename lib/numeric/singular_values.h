#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moelora {

// The singular values of a product B A, A [n, in] and B [out, n], largest first, from its factors'
// Gram matrices alone: `a` is A A^T, `b` is B^T B, both [n, n], row-major, symmetric. Values below
// some 1e-8 of the largest are rounding. Empty where a value is not finite. Takes n^3 steps.
std::vector<double> singular_values(std::span<const double> a, std::span<const double> b,
                                    int64_t n);

}  // namespace moelora
