#include "lib/base/copy/copy_kernels.h"

#include <cstring>
#include <utility>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

namespace moelora {
namespace {

// Calls f with a zero of the unsigned type of `width` bytes.
template <class F>
void with_type(int width, F&& f) {
  switch (width) {
    case 1:
      return f(uint8_t{});
    case 2:
      return f(uint16_t{});
    case 4:
      return f(uint32_t{});
    default:
      return f(uint64_t{});
  }
}

template <class T>
T load(const std::byte* p) {
  T x;
  std::memcpy(&x, p, sizeof x);
  return x;
}

template <class T>
void store(std::byte* p, T x) {
  std::memcpy(p, &x, sizeof x);
}

constexpr int kVectorBytes = 16;

template <class T>
struct Lanes {
  static constexpr int kCount = kVectorBytes / static_cast<int>(sizeof(T));
  using Vector [[gnu::vector_size(kVectorBytes)]] = T;
};

// a0 b0 a1 b1 ... of the first (from = 0) or second (from = kCount / 2) halves.
template <class T, int kFrom, int... kLane>
auto interleave(typename Lanes<T>::Vector a, typename Lanes<T>::Vector b,
                std::integer_sequence<int, kLane...>) {
  return __builtin_shufflevector(a, b, (kLane % 2 * Lanes<T>::kCount + kLane / 2 + kFrom)...);
}

// A square tile of registers: log2(n) perfect shuffles of the rows transpose it.
template <class T>
void transpose_tile(const std::byte* const* src_rows, int64_t src_offset,
                    std::byte* const* dst_rows, int64_t dst_offset) {
  constexpr int kN = Lanes<T>::kCount;
  using Vector = typename Lanes<T>::Vector;
  constexpr std::make_integer_sequence<int, kN> kLanes;
  Vector a[kN], b[kN];
  for (int j = 0; j < kN; ++j) a[j] = load<Vector>(src_rows[j] + src_offset);
  for (int round = 1; round < kN; round *= 2) {
    for (int j = 0; j < kN / 2; ++j) {
      b[2 * j] = interleave<T, 0>(a[j], a[j + kN / 2], kLanes);
      b[2 * j + 1] = interleave<T, kN / 2>(a[j], a[j + kN / 2], kLanes);
    }
    std::memcpy(a, b, sizeof a);
  }
  for (int i = 0; i < kN; ++i) store(dst_rows[i] + dst_offset, a[i]);
}

template <class T>
void transpose_edge(const RowTable& rows, int64_t src_offset, int64_t dst_offset, int64_t src_from,
                    int64_t src_to, int64_t dst_from, int64_t dst_to) {
  constexpr int64_t kW = sizeof(T);
  for (int64_t i = dst_from; i < dst_to; ++i)
    for (int64_t j = src_from; j < src_to; ++j)
      store(rows.dst_rows[i] + dst_offset + j * kW,
            load<T>(rows.src_rows[j] + src_offset + i * kW));
}

template <class T>
void transpose(const RowTable& rows, int64_t src_offset, int64_t dst_offset) {
  constexpr int64_t kN = Lanes<T>::kCount, kW = sizeof(T);
  const int64_t src_tiled = rows.src_count / kN * kN, dst_tiled = rows.dst_count / kN * kN;
  for (int64_t j = 0; j < src_tiled; j += kN)
    for (int64_t i = 0; i < dst_tiled; i += kN)
      transpose_tile<T>(rows.src_rows + j, src_offset + i * kW, rows.dst_rows + i,
                        dst_offset + j * kW);
  transpose_edge<T>(rows, src_offset, dst_offset, src_tiled, rows.src_count, 0, dst_tiled);
  transpose_edge<T>(rows, src_offset, dst_offset, 0, rows.src_count, dst_tiled, rows.dst_count);
}

template <int64_t kBytes>
void copy_fixed_runs(int64_t count, const std::byte* src, int64_t src_step, std::byte* dst,
                     int64_t dst_step) {
  for (int64_t i = 0; i < count; ++i) std::memcpy(dst + i * dst_step, src + i * src_step, kBytes);
}

}  // namespace

void transpose_rows(int width, const RowTable& rows, int64_t src_offset, int64_t dst_offset) {
  with_type(width, [&](auto t) { transpose<decltype(t)>(rows, src_offset, dst_offset); });
}

void copy_runs(int64_t count, int64_t bytes, const std::byte* src, int64_t src_step, std::byte* dst,
               int64_t dst_step) {
  switch (bytes) {
    case 4:
      return copy_fixed_runs<4>(count, src, src_step, dst, dst_step);
    case 8:
      return copy_fixed_runs<8>(count, src, src_step, dst, dst_step);
    case 16:
      return copy_fixed_runs<16>(count, src, src_step, dst, dst_step);
    case 32:
      return copy_fixed_runs<32>(count, src, src_step, dst, dst_step);
    case 64:
      return copy_fixed_runs<64>(count, src, src_step, dst, dst_step);
    case 128:
      return copy_fixed_runs<128>(count, src, src_step, dst, dst_step);
    default:
      for (int64_t i = 0; i < count; ++i)
        std::memcpy(dst + i * dst_step, src + i * src_step, static_cast<size_t>(bytes));
  }
}

void copy_elements(int width, int64_t count, const std::byte* src, int64_t src_step, std::byte* dst,
                   int64_t dst_step) {
  with_type(width, [&](auto t) { copy_fixed_runs<sizeof t>(count, src, src_step, dst, dst_step); });
}

#ifdef __SSE2__
void stream_run(const std::byte* src, std::byte* dst, int64_t bytes) {
  if ((reinterpret_cast<uintptr_t>(dst) | static_cast<uintptr_t>(bytes)) % sizeof(__m128i) != 0) {
    std::memcpy(dst, src, static_cast<size_t>(bytes));
    return;
  }
  for (int64_t at = 0; at < bytes; at += static_cast<int64_t>(sizeof(__m128i)))
    _mm_stream_si128(reinterpret_cast<__m128i*>(dst + at), load<__m128i>(src + at));
}
void end_streams() { _mm_sfence(); }
#else
void stream_run(const std::byte* src, std::byte* dst, int64_t bytes) {
  std::memcpy(dst, src, static_cast<size_t>(bytes));
}
void end_streams() {}
#endif

void split_pairs(int width, int64_t count, const std::byte* src, std::byte* even, std::byte* odd) {
  with_type(width, [&](auto t) {
    using T = decltype(t);
    constexpr int64_t kW = sizeof(T);
    for (int64_t i = 0; i < count; ++i) {
      store(even + i * kW, load<T>(src + 2 * i * kW));
      store(odd + i * kW, load<T>(src + (2 * i + 1) * kW));
    }
  });
}

void join_pairs(int width, int64_t count, const std::byte* even, const std::byte* odd,
                std::byte* dst) {
  with_type(width, [&](auto t) {
    using T = decltype(t);
    constexpr int64_t kW = sizeof(T);
    for (int64_t i = 0; i < count; ++i) {
      store(dst + 2 * i * kW, load<T>(even + i * kW));
      store(dst + (2 * i + 1) * kW, load<T>(odd + i * kW));
    }
  });
}

}  // namespace moelora
