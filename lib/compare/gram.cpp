#include "lib/compare/gram.h"

#include <algorithm>

#include "lib/base/cast.h"

namespace moelora {
namespace {

constexpr int64_t kTile = 64;  // columns at a time: a tile stays in the nearest caches
constexpr int64_t kLanes = 8;  // rows of the matrix are padded to vectors of this many
constexpr int64_t kBlock = 8;  // rows whose sums are taken together

using Lanes = double __attribute__((vector_size(kLanes * sizeof(double)), may_alias));

// Memory in whole vectors, aligned for them.
struct alignas(kLanes * sizeof(double)) Vector {
  double values[kLanes];
};
class Doubles {
 public:
  explicit Doubles(int64_t count) : vectors_(static_cast<size_t>(count / kLanes)) {}
  double* data() { return vectors_.data()->values; }

 private:
  std::vector<Vector> vectors_;  // zero to begin with
};

// sums[first + i][j] += tile[c][first + i] * tile[c][j..j+8) over all columns c of a tile, for rows
// i in [0, kBlock). `rows` of them at a time: their sums are what registers hold.
template <int64_t rows>
[[gnu::always_inline]] inline void add_rows(const double* tile, int64_t width, int64_t columns,
                                            int64_t first, int64_t j, double* sums) {
  for (const int64_t end = first + kBlock; first < end; first += rows) {
    Lanes sum[rows] = {};
    for (int64_t c = 0; c < columns; ++c) {
      const double* row = tile + c * width;
      const Lanes& values = *reinterpret_cast<const Lanes*>(row + j);
      for (int64_t i = 0; i < rows; ++i) sum[i] += values * row[first + i];
    }
    for (int64_t i = 0; i < rows; ++i)
      *reinterpret_cast<Lanes*>(sums + (first + i) * width + j) += sum[i];
  }
}

using AddBlock = void (*)(const double*, int64_t, int64_t, int64_t, int64_t, double*);

void add_block_plain(const double* tile, int64_t width, int64_t columns, int64_t first, int64_t j,
                     double* sums) {
  add_rows<2>(tile, width, columns, first, j, sums);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void add_block_avx2(const double* tile, int64_t width,
                                                        int64_t columns, int64_t first, int64_t j,
                                                        double* sums) {
  add_rows<4>(tile, width, columns, first, j, sums);
}

__attribute__((target("avx512f"))) void add_block_avx512(const double* tile, int64_t width,
                                                         int64_t columns, int64_t first, int64_t j,
                                                         double* sums) {
  add_rows<8>(tile, width, columns, first, j, sums);
}
#endif

// By what the processor can, not by what it is: GCC's target_clones("arch=...") takes none but
// Intel's own. All give the same bits for factors of 24 bits or fewer: their products are exact.
AddBlock fastest_add_block() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") != 0) return add_block_avx512;
  if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0)
    return add_block_avx2;
#endif
  return add_block_plain;
}

// Columns [first, first + columns) of all factors, one column after another, each padded to
// `width`.
class Tile {
 public:
  Tile(std::span<const FactorValues> factors, int64_t width)
      : factors_(factors), width_(width), values_(kTile * width) {}

  const double* load(int64_t first, int64_t columns) {
    int64_t row = 0;
    for (const FactorValues& f : factors_) {
      f.across ? load_across(f, row, first, columns) : load_along(f, row, first, columns);
      row += f.rows;
    }
    return values_.data();
  }

 private:
  double* at(int64_t column, int64_t row) { return values_.data() + column * width_ + row; }

  // Values of a column lie together, and columns one after another.
  void load_across(const FactorValues& f, int64_t row, int64_t first, int64_t columns) {
    const double* values = cast(f, first * f.rows, columns * f.rows);
    for (int64_t c = 0; c < columns; ++c) std::copy_n(values + c * f.rows, f.rows, at(c, row));
  }

  void load_along(const FactorValues& f, int64_t row, int64_t first, int64_t columns) {
    for (int64_t r = 0; r < f.rows; ++r) {
      const double* line = cast(f, r * f.columns + first, columns);
      for (int64_t c = 0; c < columns; ++c) *at(c, row + r) = line[c];
    }
  }

  // `count` values from the element `first` on; until the next cast.
  const double* cast(const FactorValues& f, int64_t first, int64_t count) {
    if (static_cast<size_t>(count) > line_.size()) line_.resize(static_cast<size_t>(count));
    cast_elements(f.dtype, DType::F64, count, f.data + first * dtype_bytes(f.dtype),
                  reinterpret_cast<std::byte*>(line_.data()));
    return line_.data();
  }

  std::span<const FactorValues> factors_;
  int64_t width_;
  Doubles values_;  // zero in the padding
  std::vector<double> line_;
};

}  // namespace

std::vector<double> gram_matrix(std::span<const FactorValues> factors) {
  static const AddBlock add_block = fastest_add_block();
  int64_t rows = 0;
  for (const FactorValues& f : factors) rows += f.rows;
  const int64_t width = (rows + kLanes - 1) / kLanes * kLanes, length = factors[0].columns;
  Doubles sums(width * width);
  Tile tile(factors, width);
  for (int64_t first = 0; first < length; first += kTile) {
    const int64_t columns = std::min(kTile, length - first);
    const double* values = tile.load(first, columns);
    for (int64_t i = 0; i < width; i += kBlock)  // the upper triangle, in whole vectors
      for (int64_t j = i / kLanes * kLanes; j < width; j += kLanes)
        add_block(values, width, columns, i, j, sums.data());
  }
  std::vector<double> out(static_cast<size_t>(rows * rows));
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < rows; ++j)
      out[static_cast<size_t>(i * rows + j)] = sums.data()[std::min(i, j) * width + std::max(i, j)];
  return out;
}

}  // namespace moelora
