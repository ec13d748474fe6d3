#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/base/dtype.h"
#include "lib/numeric/stats/value_stats.h"

namespace moelora {

// Adds `count` elements of a float type at `values` to `stats`; the first of them is element
// `first` of its tensor. What is finite counts in max_abs, sum and sum_squares; the rest in nan,
// inf and first_bad. Sums are of single precision within some thousand elements, of double
// precision beyond. REQUIRES: is_float(dtype).
void add_values(DType dtype, const std::byte* values, int64_t count, int64_t first,
                ValueStats& stats);

// The same, element by element, in double precision: what the other one is tested with, and what
// it falls back to for elements that are not finite or very large.
void add_values_simple(DType dtype, const std::byte* values, int64_t count, int64_t first,
                       ValueStats& stats);

// Joins the statistics of two parts of a tensor.
void merge_stats(ValueStats& into, const ValueStats& part);

}  // namespace moelora
