#include "lib/numeric/stats/stacked_profile.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

#include "lib/base/cast.h"
#include "lib/base/lanes.h"

namespace moelora {
namespace {

// Norms of the rows or columns of a row-major block of F32 or BF16 values. Sums within a block are
// of single precision: a value above 2^63 makes its sum infinite, as an infinity does; a NaN makes
// it NaN.

// A word holds one F32 or two BF16.
constexpr int64_t kWords = 32;  // bytes of a vector
constexpr uint32_t kMagnitude = 0x7FFFFFFF;

constexpr int64_t per_word(DType dtype) { return dtype == DType::BF16 ? 2 : 1; }

// The part-th values of 8 words, as the bits of floats.
template <DType kType, int kPart>
[[gnu::always_inline]] inline void load(const std::byte* at, U32x8& out) {
  __builtin_memcpy(&out, at, sizeof out);
  if constexpr (kType == DType::BF16) out = kPart == 0 ? out << 16 : out & 0xFFFF0000U;
}

// One value, as the bits of a float.
template <DType kType>
uint32_t load_one(const std::byte* values, int64_t index) {
  if constexpr (kType == DType::BF16) {
    uint16_t half = 0;
    std::memcpy(&half, values + 2 * index, sizeof half);
    return uint32_t{half} << 16;
  } else {
    uint32_t bits = 0;
    std::memcpy(&bits, values + 4 * index, sizeof bits);
    return bits;
  }
}

// ---- columns ----

// Two vectors of columns, whose sums stay in registers down the rows.
template <DType kType>
struct ColumnPanel {
  static constexpr int64_t kColumns = 16 * per_word(kType);
  F32x8 squares[4] = {};
  U32x8 bits[4] = {};

  template <int kSlot, int kPart>
  [[gnu::always_inline]] inline void add(const std::byte* at) {
    U32x8 x;
    load<kType, kPart>(at, x);
    squares[kSlot] += reinterpret_cast<F32x8>(x) * reinterpret_cast<F32x8>(x);
    bits[kSlot] |= x;
  }

  [[gnu::always_inline]] inline void run(const std::byte* values, int64_t rows, int64_t stride) {
    for (int64_t row = 0; row < rows; ++row, values += stride) {
      add<0, 0>(values);
      add<1, 0>(values + kWords);
      if constexpr (kType == DType::BF16) {
        add<2, 1>(values);
        add<3, 1>(values + kWords);
      }
    }
  }

  void give(double* to_squares, uint32_t* to_bits) const {
    for (int64_t c = 0; c < kColumns; ++c) {
      const int64_t word = c / per_word(kType), part = c % per_word(kType);
      const int64_t slot = word / 8 + 2 * part, lane = word % 8;
      to_squares[c] += static_cast<double>(squares[slot][lane]);
      to_bits[c] |= bits[slot][lane] & kMagnitude;
    }
  }
};

template <DType kType>
[[gnu::always_inline]] inline void column_panels(const std::byte* values, int64_t rows,
                                                 int64_t columns, double* squares, uint32_t* bits) {
  constexpr int64_t kColumns = ColumnPanel<kType>::kColumns;
  const int64_t width = 4 / per_word(kType);
  int64_t c = 0;
  for (; c + kColumns <= columns; c += kColumns) {
    ColumnPanel<kType> panel;
    panel.run(values + c * width, rows, columns * width);
    panel.give(squares + c, bits + c);
  }
  for (; c < columns; ++c)
    for (int64_t row = 0; row < rows; ++row) {
      const uint32_t x = load_one<kType>(values, row * columns + c);
      squares[c] += static_cast<double>(std::bit_cast<float>(x) * std::bit_cast<float>(x));
      bits[c] |= x & kMagnitude;
    }
}

// ---- rows ----

template <DType kType>
struct RowSums {
  F32x8 squares[4] = {};
  I32x8 most[4] = {};  // the bits of |x| are ordered as |x| is

  template <int kSlot, int kPart>
  [[gnu::always_inline]] inline void add(const std::byte* at) {
    U32x8 x;
    load<kType, kPart>(at, x);
    squares[kSlot] += reinterpret_cast<F32x8>(x) * reinterpret_cast<F32x8>(x);
    const I32x8 magnitude = reinterpret_cast<I32x8>(x) & 0x7FFFFFFF;
    most[kSlot] = magnitude > most[kSlot] ? magnitude : most[kSlot];
  }

  [[gnu::always_inline]] inline void run(const std::byte* values, int64_t bytes) {
    for (int64_t at = 0; at < bytes; at += 2 * kWords) {
      add<0, 0>(values + at);
      add<1, 0>(values + at + kWords);
      if constexpr (kType == DType::BF16) {
        add<2, 1>(values + at);
        add<3, 1>(values + at + kWords);
      }
    }
  }
};

template <DType kType>
[[gnu::always_inline]] inline void row_sums(const std::byte* values, int64_t rows, int64_t columns,
                                            double* squares, float* most) {
  const int64_t width = 4 / per_word(kType), whole = columns * width / (2 * kWords) * (2 * kWords);
  for (int64_t row = 0; row < rows; ++row, values += columns * width) {
    RowSums<kType> sums;
    sums.run(values, whole);
    double total = 0;
    int32_t largest = 0;
    for (int slot = 0; slot < 4; ++slot)
      for (int lane = 0; lane < 8; ++lane) {
        total += static_cast<double>(sums.squares[slot][lane]);
        largest = std::max<int32_t>(largest, sums.most[slot][lane]);
      }
    for (int64_t c = whole / width; c < columns; ++c) {
      const uint32_t x = load_one<kType>(values, c);
      total += static_cast<double>(std::bit_cast<float>(x) * std::bit_cast<float>(x));
      largest = std::max(largest, static_cast<int32_t>(x & kMagnitude));
    }
    squares[row] = total;
    most[row] = std::bit_cast<float>(largest);
  }
}

// ---- for the CPU ----

#if defined(__x86_64__)
template <DType kType>
__attribute__((target("avx2"))) void column_panels_avx2(const std::byte* values, int64_t rows,
                                                        int64_t columns, double* squares,
                                                        uint32_t* bits) {
  column_panels<kType>(values, rows, columns, squares, bits);
}

template <DType kType>
__attribute__((target("avx2"))) void row_sums_avx2(const std::byte* values, int64_t rows,
                                                   int64_t columns, double* squares, float* most) {
  row_sums<kType>(values, rows, columns, squares, most);
}

bool has_avx2() {
  static const bool answer = __builtin_cpu_supports("avx2") != 0;
  return answer;
}
#endif

template <DType kType>
void columns_for_cpu(const std::byte* values, int64_t rows, int64_t columns, double* squares,
                     uint32_t* bits) {
#if defined(__x86_64__)
  if (has_avx2()) return column_panels_avx2<kType>(values, rows, columns, squares, bits);
#endif
  column_panels<kType>(values, rows, columns, squares, bits);
}

template <DType kType>
void rows_for_cpu(const std::byte* values, int64_t rows, int64_t columns, double* squares,
                  float* most) {
#if defined(__x86_64__)
  if (has_avx2()) return row_sums_avx2<kType>(values, rows, columns, squares, most);
#endif
  row_sums<kType>(values, rows, columns, squares, most);
}

// Adds to squares[c] the squares of column c, and to bits[c] (or) its values' bits without sign.
void add_column_squares(DType dtype, const std::byte* values, int64_t rows, int64_t columns,
                        double* squares, uint32_t* bits) {
  if (dtype == DType::BF16)
    return columns_for_cpu<DType::BF16>(values, rows, columns, squares, bits);
  columns_for_cpu<DType::F32>(values, rows, columns, squares, bits);
}

// Sets squares[i] to the sum of row i's squares and most[i] to its largest magnitude.
void set_row_squares(DType dtype, const std::byte* values, int64_t rows, int64_t columns,
                     double* squares, float* most) {
  if (dtype == DType::BF16) return rows_for_cpu<DType::BF16>(values, rows, columns, squares, most);
  rows_for_cpu<DType::F32>(values, rows, columns, squares, most);
}

// ---- both tensors of a pair ----

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
