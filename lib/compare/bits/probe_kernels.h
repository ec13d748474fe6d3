#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/base/dtype.h"

namespace moelora::packed {

// The inner loops of probes.h, in wider registers where the CPU has them.

inline constexpr int kProbes = 2;

// Magnitudes of elements, as the integers that their bits without the sign are.
struct Magnitudes {
  uint64_t largest = 0, smallest = 0;  // that is not zero; both 0: all are
};
Magnitudes magnitudes(int element_bytes, const std::byte* data, int64_t count);

// Elements as doubles. REQUIRES: finite floats.
void to_doubles(DType dtype, const std::byte* in, int64_t count, double* out);

// out[p] += sum of row[i] * entries[p][i].
void add_dots(const double* row, const double* const* entries, int64_t count, double* out);

// sums[p][k] += sum of entries[p][i] * rows[i * rank + k].
void add_rows(const double* rows, const double* const* entries, int64_t count, int64_t rank,
              double* const* sums);

}  // namespace moelora::packed
