#include "lib/numeric/dot_products.h"

#include <algorithm>
#include <cstring>

namespace moelora {
namespace {

constexpr int64_t kLanes = 16;
// Of whatever registers a processor has: one of 64 bytes, two of 32 or four of 16.
using Lanes = float __attribute__((vector_size(kLanes * sizeof(float))));

// Rows of w at a time that a core's second cache holds while rows of x go by.
constexpr int64_t kCached = int64_t{1} << 16;

[[gnu::always_inline]] inline void load(const float* from, Lanes& to) {
  __builtin_memcpy(&to, from, sizeof(Lanes));
}

[[gnu::always_inline]] inline float total(const Lanes& lanes) {
  float part[kLanes];
  __builtin_memcpy(part, &lanes, sizeof(Lanes));
  for (int64_t half = kLanes / 2; half > 0; half /= 2)
    for (int64_t i = 0; i < half; ++i) part[i] += part[i + half];
  return part[0];
}

// `rows` x `columns` sums, which registers hold.
template <int64_t rows, int64_t columns>
[[gnu::always_inline]] inline void add_tile(const DotProducts& r, int64_t i0, int64_t j0) {
  Lanes sum[rows][columns] = {}, x[rows], w[columns];
  const auto add = [&] {
    for (int64_t i = 0; i < rows; ++i)
      for (int64_t j = 0; j < columns; ++j) sum[i][j] += x[i] * w[j];
  };
  int64_t at = 0;
  for (; at + kLanes <= r.k; at += kLanes) {
    for (int64_t i = 0; i < rows; ++i) load(r.x + (i0 + i) * r.k + at, x[i]);
    for (int64_t j = 0; j < columns; ++j) load(r.w + (j0 + j) * r.k + at, w[j]);
    add();
  }
  if (at < r.k) {
    const auto rest = static_cast<size_t>(r.k - at) * sizeof(float);
    for (int64_t i = 0; i < rows; ++i) {
      x[i] = Lanes{};
      std::memcpy(&x[i], r.x + (i0 + i) * r.k + at, rest);
    }
    for (int64_t j = 0; j < columns; ++j) {
      w[j] = Lanes{};
      std::memcpy(&w[j], r.w + (j0 + j) * r.k + at, rest);
    }
    add();
  }
  for (int64_t i = 0; i < rows; ++i)
    for (int64_t j = 0; j < columns; ++j) r.out[(i0 + i) * r.stride + j0 + j] = total(sum[i][j]);
}

template <int64_t rows, int64_t columns>
[[gnu::always_inline]] inline void add_row_of_tiles(const DotProducts& r, int64_t i, int64_t j,
                                                    int64_t end) {
  for (; j + columns <= end; j += columns) add_tile<rows, columns>(r, i, j);
  for (; j < end; ++j) add_tile<rows, 1>(r, i, j);
}

template <int64_t rows, int64_t columns>
[[gnu::always_inline]] inline void multiply_by(const DotProducts& r) {
  const int64_t cached = std::max(columns, kCached / std::max<int64_t>(1, r.k));
  for (int64_t j = 0; j < r.m; j += cached) {
    const int64_t end = std::min(r.m, j + cached);
    int64_t i = 0;
    for (; i + rows <= r.n; i += rows) add_row_of_tiles<rows, columns>(r, i, j, end);
    for (; i < r.n; ++i) add_row_of_tiles<1, columns>(r, i, j, end);
  }
}

void multiply_plain(const DotProducts& request) { multiply_by<2, 1>(request); }

#if defined(__x86_64__)
__attribute__((target("avx2"))) void multiply_avx2(const DotProducts& request) {
  multiply_by<2, 2>(request);
}

__attribute__((target("avx512f,avx512vl,avx512bw,avx512dq"))) void multiply_avx512(
    const DotProducts& request) {
  multiply_by<4, 4>(request);
}
#endif

}  // namespace

std::vector<MultiplyWay> multiply_ways() {
  std::vector<MultiplyWay> out = {multiply_plain};
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx2") != 0) out.push_back(multiply_avx2);
  if (__builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
      __builtin_cpu_supports("avx512bw") != 0 && __builtin_cpu_supports("avx512dq") != 0)
    out.push_back(multiply_avx512);
#endif
  return out;
}

void multiply(const DotProducts& request) {
  static const MultiplyWay way = multiply_ways().back();
  way(request);
}

}  // namespace moelora
