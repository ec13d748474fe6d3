#include "lib/numeric/stats/stacked_profile.h"

#include <algorithm>
#include <cmath>

#include "lib/base/cast.h"
#include "lib/numeric/stats/profile_kernels.h"

namespace moelora {
namespace {

constexpr int64_t kBlockBytes = 256 << 10;

// Calls f(first row, rows, dtype, values) for a [rows, columns] matrix, some rows at a time: BF16
// as they are, all other types as F32.
template <class F>
void for_blocks(const Tensor& matrix, F f) {
  const int64_t rows = matrix.dim(0), columns = matrix.dim(1);
  const DType dtype = matrix.dtype() == DType::BF16 ? DType::BF16 : DType::F32;
  const int64_t widest = std::max(dtype_bytes(matrix.dtype()), dtype_bytes(dtype));
  const int64_t most = std::clamp<int64_t>(kBlockBytes / std::max<int64_t>(1, columns * widest), 1,
                                           std::max<int64_t>(1, rows));
  std::vector<std::byte> read(static_cast<size_t>(most * columns * dtype_bytes(matrix.dtype())));
  std::vector<std::byte> cast;
  if (dtype != matrix.dtype()) cast.resize(static_cast<size_t>(most * columns * 4));
  for (int64_t first = 0; first < rows; first += most) {
    const int64_t count = std::min(most, rows - first);
    matrix.slice(0, first, count).read(read.data());
    if (!cast.empty())
      cast_elements(matrix.dtype(), dtype, count * columns, read.data(), cast.data());
    f(first, count, dtype, cast.empty() ? read.data() : cast.data());
  }
}

void profile_columns(const Tensor& b, StackedProfile& out) {
  const int64_t columns = b.dim(1);
  out.column_squares.assign(static_cast<size_t>(columns), 0);
  std::vector<uint32_t> bits(static_cast<size_t>(columns), 0);
  for_blocks(b, [&](int64_t, int64_t rows, DType dtype, const std::byte* values) {
    add_column_squares(dtype, values, rows, columns, out.column_squares.data(), bits.data());
  });
  for (const uint32_t b_bits : bits) out.column_is_zero.push_back(b_bits == 0);
}

void profile_rows(const Tensor& a, StackedProfile& out) {
  // A BF16 may have been rounded up.
  const double bound = 1.004 / std::sqrt(static_cast<double>(a.dim(1)));
  std::vector<float> most(static_cast<size_t>(a.dim(0)));
  out.row_squares.resize(most.size());
  for_blocks(a, [&](int64_t first, int64_t rows, DType dtype, const std::byte* values) {
    set_row_squares(dtype, values, rows, a.dim(1), out.row_squares.data() + first,
                    most.data() + first);
  });
  for (const float m : most) out.row_is_initial.push_back(static_cast<double>(m) <= bound);
}

}  // namespace

StackedProfile profile_stacked_pair(const Tensor& a, const Tensor& b, int64_t experts) {
  StackedProfile out;
  out.experts = experts;
  out.rank = a.dim(0) / experts;
  profile_rows(a, out);
  profile_columns(b, out);
  const auto finite = [](double sum) { return std::isfinite(sum); };
  out.finite = std::all_of(out.row_squares.begin(), out.row_squares.end(), finite) &&
               std::all_of(out.column_squares.begin(), out.column_squares.end(), finite);
  return out;
}

}  // namespace moelora
