#include "lib/base/low_rank.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <utility>
#include <vector>

namespace moelora {
namespace {

constexpr int64_t kTile = 64;  // columns at a time: a tile stays in the nearest caches
constexpr int64_t kLanes = 8;  // rows of the matrix are padded to vectors of this many

// Vectors of the compiler, passed by reference: how they are passed by value depends on the CPU.
using Lanes = double __attribute__((vector_size(kLanes * sizeof(double)), may_alias));
using Floats = float __attribute__((vector_size(kLanes * sizeof(float))));
using Words = uint32_t __attribute__((vector_size(kLanes * sizeof(uint32_t))));
using Halves = uint16_t __attribute__((vector_size(kLanes * sizeof(uint16_t))));

// ---- values as doubles ----

// Eight values from `at` on.
template <DType kType>
[[gnu::always_inline]] inline void load(const std::byte* at, Lanes& out) {
  if constexpr (kType == DType::F64) {
    __builtin_memcpy(&out, at, sizeof out);
  } else if constexpr (kType == DType::F32) {
    Floats values;
    __builtin_memcpy(&values, at, sizeof values);
    out = __builtin_convertvector(values, Lanes);
  } else {
    Halves halves;
    __builtin_memcpy(&halves, at, sizeof halves);
    Words bits = __builtin_convertvector(halves, Words);
    if constexpr (kType == DType::BF16) {
      bits <<= 16;
    } else {
      // An F16 is the float of its bits moved into place, but for the bias, 2^(127 - 15); what is
      // not finite has the largest exponent here too.
      const Words sign = (bits & 0x8000U) << 16, magnitude = (bits & 0x7FFFU) << 13;
      const Words special = reinterpret_cast<Words>(magnitude >= (0x7C00U << 13)) & 0x7F800000U;
      const Floats value = reinterpret_cast<Floats>(magnitude) * 0x1p112F;
      bits = reinterpret_cast<Words>(value) | special | sign;
    }
    out = __builtin_convertvector(reinterpret_cast<Floats>(bits), Lanes);
  }
}

// `count` values, fewer than eight of them.
template <DType kType>
[[gnu::always_inline]] inline void load_some(const std::byte* at, int64_t count, Lanes& out) {
  std::array<std::byte, sizeof(Lanes)> padded = {};
  std::copy_n(at, count * dtype_bytes(kType), padded.begin());
  load<kType>(padded.data(), out);
}

// ---- a tile: some columns of all factors, one column after another, each padded to `width` ----

// Of every two neighbouring groups of `kGroup` lanes, exchanges the second of a and the first of b.
template <int kGroup, int... kLane>
[[gnu::always_inline]] inline void exchange(Lanes& a, Lanes& b,
                                            std::integer_sequence<int, kLane...>) {
  const Lanes first =
      __builtin_shufflevector(a, b, ((kLane & kGroup) == 0 ? kLane : kLanes + kLane - kGroup)...);
  b = __builtin_shufflevector(a, b, ((kLane & kGroup) == 0 ? kLane + kGroup : kLanes + kLane)...);
  a = first;
}

// v[i][j] becomes v[j][i].
[[gnu::always_inline]] inline void transpose(Lanes* v) {
  constexpr std::make_integer_sequence<int, kLanes> kAll;
  for (const int i : {0, 2, 4, 6}) exchange<1>(v[i], v[i + 1], kAll);
  for (const int i : {0, 1, 4, 5}) exchange<2>(v[i], v[i + 2], kAll);
  for (const int i : {0, 1, 2, 3}) exchange<4>(v[i], v[i + 4], kAll);
}

// The first `count` of eight.
[[gnu::always_inline]] inline void store(const Lanes& v, int64_t count, double* to) {
  if (count == kLanes)
    __builtin_memcpy(to, &v, sizeof v);
  else
    for (int64_t i = 0; i < count; ++i) to[i] = v[i];
}

// A row's values lie together.
template <DType kType>
[[gnu::always_inline]] inline void load_along(const FactorValues& f, int64_t first, int64_t columns,
                                              int64_t width, double* tile) {
  const int64_t bytes = dtype_bytes(kType);
  for (int64_t row = 0; row < f.rows; row += kLanes)
    for (int64_t c = 0; c < columns; c += kLanes) {
      const int64_t rows = std::min(kLanes, f.rows - row), count = std::min(kLanes, columns - c);
      Lanes v[kLanes] = {};
      for (int64_t r = 0; r < rows; ++r) {
        const std::byte* at = f.data + ((row + r) * f.columns + first + c) * bytes;
        count == kLanes ? load<kType>(at, v[r]) : load_some<kType>(at, count, v[r]);
      }
      transpose(v);
      for (int64_t i = 0; i < count; ++i) store(v[i], rows, tile + (c + i) * width + row);
    }
}

// A column's values lie together, and columns one after another.
template <DType kType>
[[gnu::always_inline]] inline void load_across(const FactorValues& f, int64_t first,
                                               int64_t columns, int64_t width, double* tile) {
  const std::byte* at = f.data + first * f.rows * dtype_bytes(kType);
  for (int64_t c = 0; c < columns; ++c, at += f.rows * dtype_bytes(kType))
    for (int64_t row = 0; row < f.rows; row += kLanes) {
      const int64_t rows = std::min(kLanes, f.rows - row);
      Lanes v;
      rows == kLanes ? load<kType>(at + row * dtype_bytes(kType), v)
                     : load_some<kType>(at + row * dtype_bytes(kType), rows, v);
      store(v, rows, tile + c * width + row);
    }
}

template <DType kType>
[[gnu::always_inline]] inline void load_tile(const FactorValues& f, int64_t first, int64_t columns,
                                             int64_t width, double* tile) {
  f.across ? load_across<kType>(f, first, columns, width, tile)
           : load_along<kType>(f, first, columns, width, tile);
}

// ---- sums ----

// sums[i][j] += tile[c][i] * tile[c][j] over the columns c of a tile, for `rows` rows i from
// `first` on and some vectors of j: their sums are what registers hold.
template <int64_t rows, int64_t vectors>
[[gnu::always_inline]] inline void add_block(const double* tile, int64_t width, int64_t columns,
                                             int64_t first, int64_t j, double* sums) {
  Lanes sum[rows][vectors] = {}, values[vectors];
  for (int64_t c = 0; c < columns; ++c) {
    const double* row = tile + c * width;
    for (int64_t k = 0; k < vectors; ++k)
      __builtin_memcpy(&values[k], row + j + k * kLanes, sizeof(Lanes));
#ifndef __clang__
#pragma GCC unroll 8
#endif
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t k = 0; k < vectors; ++k) sum[i][k] += values[k] * row[first + i];
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t k = 0; k < vectors; ++k)
      *reinterpret_cast<Lanes*>(sums + (first + i) * width + j + k * kLanes) += sum[i][k];
}

// The upper triangle, in whole vectors.
template <int64_t rows, int64_t vectors>
[[gnu::always_inline]] inline void add_factors(std::span<const FactorValues> factors, int64_t width,
                                               double* tile, double* sums) {
  const int64_t length = factors[0].columns;
  for (int64_t first = 0; first < length; first += kTile) {
    const int64_t columns = std::min(kTile, length - first);
    double* to = tile;
    for (const FactorValues& f : factors) {
      if (f.dtype == DType::BF16) load_tile<DType::BF16>(f, first, columns, width, to);
      if (f.dtype == DType::F16) load_tile<DType::F16>(f, first, columns, width, to);
      if (f.dtype == DType::F32) load_tile<DType::F32>(f, first, columns, width, to);
      if (f.dtype == DType::F64) load_tile<DType::F64>(f, first, columns, width, to);
      to += f.rows;
    }
    for (int64_t i = 0; i < width; i += rows) {
      int64_t j = i / kLanes * kLanes;
      for (; j + vectors * kLanes <= width; j += vectors * kLanes)
        add_block<rows, vectors>(tile, width, columns, i, j, sums);
      if (j < width) add_block<rows, 1>(tile, width, columns, i, j, sums);
    }
  }
}

using AddFactors = void (*)(std::span<const FactorValues>, int64_t, double*, double*);

void add_plain(std::span<const FactorValues> factors, int64_t width, double* tile, double* sums) {
  add_factors<2, 1>(factors, width, tile, sums);
}

#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void add_avx2(std::span<const FactorValues> factors,
                                                  int64_t width, double* tile, double* sums) {
  add_factors<4, 1>(factors, width, tile, sums);
}

__attribute__((target("avx512f,avx512vl,avx512bw"))) void add_avx512(
    std::span<const FactorValues> factors, int64_t width, double* tile, double* sums) {
  add_factors<8, 2>(factors, width, tile, sums);
}
#endif

// By what the processor can, not by what it is: GCC's target_clones("arch=...") takes none but
// Intel's own. All give the same bits for factors of 24 bits or fewer: their products are exact.
AddFactors fastest() {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
      __builtin_cpu_supports("avx512bw") != 0)
    return add_avx512;
  if (__builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0) return add_avx2;
#endif
  return add_plain;
}

}  // namespace

Gram::Gram(int64_t rows)
    : rows_(rows),
      width_((rows + kLanes - 1) / kLanes * kLanes),
      sums_(static_cast<size_t>(width_ * width_ / kLanes)) {}

void Gram::add(std::span<const FactorValues> factors) {
  static const AddFactors add_factors = fastest();
  std::vector<Vector> tile(static_cast<size_t>(kTile * width_ / kLanes));  // zero in the padding
  add_factors(factors, width_, tile.data()->values, sums_.data()->values);
}

double Gram::at(int64_t i, int64_t j) const {
  const double* const sums = sums_.data()->values;
  return sums[std::min(i, j) * width_ + std::max(i, j)];
}

Gram gram_of(std::span<const FactorValues> factors) {
  int64_t rows = 0;
  for (const FactorValues& f : factors) rows += f.rows;
  Gram out(rows);
  out.add(factors);
  return out;
}

double RankOneParts::sum(int64_t i0, int64_t i1, int64_t j0, int64_t j1) const {
  double out = 0;
  for (int64_t i = i0; i < i1; ++i)
    for (int64_t j = j0; j < j1; ++j) out += at(i, j);
  return out;
}

double RankOneParts::squares(int64_t first, int64_t end) const {
  double out = 0;
  for (int64_t i = first; i < end; ++i) out += at(i, i);
  return out;
}

// As trace((Q P)^2).
double RankOneParts::fourth_powers(int64_t first, int64_t end) const {
  const int64_t r = end - first;
  std::vector<double> product(static_cast<size_t>(r * r));
  for (int64_t i = 0; i < r; ++i)
    for (int64_t k = 0; k < r; ++k)
      for (int64_t j = 0; j < r; ++j)
        product[static_cast<size_t>(i * r + j)] +=
            b_.at(first + i, first + k) * a_.at(first + k, first + j);
  double trace = 0;
  for (int64_t i = 0; i < r; ++i)
    for (int64_t j = 0; j < r; ++j)
      trace += product[static_cast<size_t>(i * r + j)] * product[static_cast<size_t>(j * r + i)];
  return trace;
}

double ProductDistance::relative() const {
  if (x > 0) return apart / x;
  return apart == 0 ? 0 : std::numeric_limits<double>::infinity();
}

ProductDistance distance_of(const RankOneParts& parts, int64_t first, double x_scale,
                            double y_scale) {
  const int64_t end = parts.size();
  ProductDistance out;
  out.x = std::fabs(x_scale) * std::sqrt(std::max(0.0, parts.sum(0, first, 0, first)));
  out.y = std::fabs(y_scale) * std::sqrt(std::max(0.0, parts.sum(first, end, first, end)));
  out.inner = x_scale * y_scale * parts.sum(0, first, first, end);
  const double apart = out.x * out.x + out.y * out.y - 2 * out.inner;
  const double noise = kResolution * std::max(out.x, out.y);
  // What is not finite must not pass for 0.
  out.apart = std::isfinite(apart) && apart <= noise * noise ? 0 : std::sqrt(apart);
  return out;
}

}  // namespace moelora
