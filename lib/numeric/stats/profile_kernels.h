#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/base/dtype.h"

namespace moelora {

// Norms of the rows or columns of a row-major block of values. Sums within a block are of single
// precision: a value above 2^63 makes its sum infinite, as an infinity does; a NaN makes it NaN.
// REQUIRES: dtype is F32 or BF16.

// Adds to squares[c] the squares of column c, and to bits[c] (or) its values' bits without sign.
void add_column_squares(DType dtype, const std::byte* values, int64_t rows, int64_t columns,
                        double* squares, uint32_t* bits);

// Sets squares[i] to the sum of row i's squares and most[i] to its largest magnitude.
void set_row_squares(DType dtype, const std::byte* values, int64_t rows, int64_t columns,
                     double* squares, float* most);

}  // namespace moelora
