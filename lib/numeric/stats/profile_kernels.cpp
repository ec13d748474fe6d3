#include "lib/numeric/stats/profile_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "lib/base/lanes.h"

namespace moelora {
namespace {

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

}  // namespace

void add_column_squares(DType dtype, const std::byte* values, int64_t rows, int64_t columns,
                        double* squares, uint32_t* bits) {
  if (dtype == DType::BF16)
    return columns_for_cpu<DType::BF16>(values, rows, columns, squares, bits);
  columns_for_cpu<DType::F32>(values, rows, columns, squares, bits);
}

void set_row_squares(DType dtype, const std::byte* values, int64_t rows, int64_t columns,
                     double* squares, float* most) {
  if (dtype == DType::BF16) return rows_for_cpu<DType::BF16>(values, rows, columns, squares, most);
  rows_for_cpu<DType::F32>(values, rows, columns, squares, most);
}

}  // namespace moelora
