#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lib/base/dtype.h"

namespace moelora {

// A factor's values in memory as `rows` vectors of `columns` values: lora_A [r, in] by its rows, or
// lora_B [out, r] by its columns (across = true: the r values of one `out` lie together).
struct FactorValues {
  DType dtype;  // F64, F32, F16 or BF16
  const std::byte* data;
  int64_t rows, columns;
  bool across;
};

// The inner products of all rows of `factors` (one below another), in double: R x R, row-major,
// symmetric. REQUIRES: the same `columns` in all.
std::vector<double> gram_matrix(std::span<const FactorValues> factors);

}  // namespace moelora
