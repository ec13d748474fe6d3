#include "lib/numeric/gram.h"

#include <algorithm>

#include "lib/base/cast.h"

namespace moelora {
namespace {

constexpr int64_t kTile = 64;  // columns at a time: a tile stays in the nearest caches
constexpr int64_t kLanes = 8;  // rows of the matrix are padded to vectors of this many
constexpr int64_t kBlock = 8;  // rows whose sums are kept in registers: enough to hide latency

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

// sums[i][j] += tile[c][first + i] * tile[c][j..j+8) over all columns c of a tile. Compiled for
// three instruction sets, chosen when the program starts.
#if defined(__x86_64__) && !defined(__clang__) && !defined(__SANITIZE_THREAD__)
__attribute__((target_clones("default", "arch=haswell", "arch=skylake-avx512")))
#endif
void add_block(const double* tile, int64_t width, int64_t columns, int64_t first, int64_t j,
               double* sums) {
  Lanes sum[kBlock] = {};
  for (int64_t c = 0; c < columns; ++c) {
    const double* row = tile + c * width;
    const Lanes& values = *reinterpret_cast<const Lanes*>(row + j);
    for (int64_t i = 0; i < kBlock; ++i) sum[i] += values * row[first + i];
  }
  for (int64_t i = 0; i < kBlock; ++i)
    *reinterpret_cast<Lanes*>(sums + (first + i) * width + j) += sum[i];
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

  void load_across(const FactorValues& f, int64_t row, int64_t first, int64_t columns) {
    const int64_t width = dtype_bytes(f.dtype);
    for (int64_t c = 0; c < columns; ++c)
      cast_elements(f.dtype, DType::F64, f.rows, f.data + (first + c) * f.rows * width,
                    reinterpret_cast<std::byte*>(at(c, row)));
  }

  void load_along(const FactorValues& f, int64_t row, int64_t first, int64_t columns) {
    const int64_t width = dtype_bytes(f.dtype);
    double line[kTile];
    for (int64_t r = 0; r < f.rows; ++r) {
      cast_elements(f.dtype, DType::F64, columns, f.data + (r * f.columns + first) * width,
                    reinterpret_cast<std::byte*>(line));
      for (int64_t c = 0; c < columns; ++c) *at(c, row + r) = line[c];
    }
  }

  std::span<const FactorValues> factors_;
  int64_t width_;
  Doubles values_;  // zero in the padding
};

}  // namespace

std::vector<double> gram_matrix(std::span<const FactorValues> factors) {
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
