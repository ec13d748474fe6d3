#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>

#include "lib/base/tensor.h"

namespace moelora {

// What one pass over the values of a tensor, or of a part of it, finds. Only float dtypes have
// statistics; of others `known` is false.
struct ValueStats {
  bool known = false;
  int64_t elements = 0;
  int64_t nan = 0, inf = 0;
  int64_t first_bad = -1;  // row-major index of the first NaN or Inf
  double max_abs = 0;      // of the finite ones
  double sum_squares = 0;  // of the finite ones; about single precision
  int64_t zeros = 0;
  // Of F32: largest relative change of a finite value by rounding to bf16; infinite where one
  // overflows. 0 for other dtypes.
  double max_bf16_error = 0;

  double root_mean_square() const;  // of the finite ones, 0 without any
  bool all_zero() const { return known && zeros == elements; }

  friend bool operator==(const ValueStats&, const ValueStats&) = default;
};

// Adds `count` elements of a float type at `values` to `stats`; the first of them is element
// `first` of its tensor. What is finite counts in max_abs and sum_squares; the rest in nan,
// inf and first_bad. Sums are of single precision within some thousand elements, of double
// precision beyond. REQUIRES: is_float(dtype).
void add_values(DType dtype, const std::byte* values, int64_t count, int64_t first,
                ValueStats& stats);

// The same, element by element, in double precision: what the other one is tested with, and what
// it falls back to for F64 and for elements that are not finite or very large.
void add_values_simple(DType dtype, const std::byte* values, int64_t count, int64_t first,
                       ValueStats& stats);

// One entry per tensor, by name. Streams: each byte is read once, in blocks of a cache's size, so
// that memory stays bounded (about 1 MB per thread; more for views of the same bytes). The result
// does not depend on `threads` (0: all cores). Throws Error when bytes cannot be read.
std::map<std::string, ValueStats> scan_values(const TensorMap& tensors, int threads);

// The coordinates of element `index` (row-major) of a tensor of this shape: {3, 17}.
Shape coordinates(const Shape& shape, int64_t index);

}  // namespace moelora
