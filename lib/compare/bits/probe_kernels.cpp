#include "lib/compare/bits/probe_kernels.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>

#include "lib/base/lanes.h"

namespace moelora::packed {
namespace {

// Functions take vectors by reference: how they are passed by value depends on the CPU.
using I16x16 = int16_t __attribute__((vector_size(32)));

[[gnu::always_inline]] inline void load(const double* from, F64x4& to) {
  __builtin_memcpy(&to, from, sizeof to);
}

struct AddDots {
  [[gnu::always_inline]] static inline void run(const double* row, const double* const* entries,
                                                int64_t count, double* out) {
    static_assert(kProbes == 2);
    F64x4 sums[kProbes][2] = {}, x, y, u;
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
      load(row + i, x);
      load(row + i + 4, y);
      for (int p = 0; p < kProbes; ++p) {
        load(entries[p] + i, u);
        sums[p][0] += x * u;
        load(entries[p] + i + 4, u);
        sums[p][1] += y * u;
      }
    }
    for (int p = 0; p < kProbes; ++p) {
      const F64x4 both = sums[p][0] + sums[p][1];
      out[p] += (both[0] + both[1]) + (both[2] + both[3]);
      for (int64_t j = i; j < count; ++j) out[p] += row[j] * entries[p][j];
    }
  }
};

struct AddRows {
  // Rows i .. i + kRows at once: sums are loaded and stored once for all of them.
  template <int kRows>
  [[gnu::always_inline]] static inline void add(const double* rows, const double* const* entries,
                                                int64_t i, int64_t rank, double* const* sums) {
    int64_t k = 0;
    for (; k + 4 <= rank; k += 4) {
      F64x4 sum[kProbes], x;
      for (int p = 0; p < kProbes; ++p) load(sums[p] + k, sum[p]);
      for (int r = 0; r < kRows; ++r) {
        load(rows + (i + r) * rank + k, x);
        for (int p = 0; p < kProbes; ++p) sum[p] += x * entries[p][i + r];
      }
      for (int p = 0; p < kProbes; ++p) __builtin_memcpy(sums[p] + k, &sum[p], sizeof sum[p]);
    }
    for (; k < rank; ++k)
      for (int r = 0; r < kRows; ++r)
        for (int p = 0; p < kProbes; ++p)
          sums[p][k] += rows[(i + r) * rank + k] * entries[p][i + r];
  }

  [[gnu::always_inline]] static inline void run(const double* rows, const double* const* entries,
                                                int64_t count, int64_t rank, double* const* sums) {
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) add<8>(rows, entries, i, rank, sums);
    for (; i < count; ++i) add<1>(rows, entries, i, rank, sums);
  }
};

// Signed, as that is what every CPU compares: no magnitude has the highest bit.
template <class Signed, class Vector>
struct FindMagnitudes {
  static constexpr Signed kMost = std::numeric_limits<Signed>::max();

  [[gnu::always_inline]] static inline void add(const Vector& bits, Vector& largest,
                                                Vector& smallest) {
    const Vector x = bits & kMost, above = (x - 1) & kMost;  // zero becomes the largest
    largest = x > largest ? x : largest;
    smallest = above < smallest ? above : smallest;
  }

  [[gnu::always_inline]] static inline void run(const std::byte* data, int64_t count,
                                                Magnitudes& out) {
    constexpr int kLanes = static_cast<int>(sizeof(Vector) / sizeof(Signed));
    Vector x = {}, rest = {}, largest = {}, smallest = ~Vector{} & kMost;
    for (; count >= kLanes; count -= kLanes, data += sizeof x) {
      __builtin_memcpy(&x, data, sizeof x);
      add(x, largest, smallest);
    }
    __builtin_memcpy(&rest, data, static_cast<size_t>(count) * sizeof(Signed));
    add(rest, largest, smallest);
    for (int i = 0; i < kLanes; ++i) {
      out.largest = std::max<uint64_t>(out.largest, static_cast<uint64_t>(largest[i]));
      out.smallest = std::min<uint64_t>(out.smallest, static_cast<uint64_t>(smallest[i]));
    }
    out.smallest = out.largest == 0 ? 0 : out.smallest + 1;
  }
};

double bf16_value(uint16_t bits) {
  return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(bits) << 16U));
}

// A finite F16 is the float of its bits moved into place, but for the bias: 2^(127 - 15).
double f16_value(uint16_t bits) {
  const uint32_t magnitude = (bits & 0x7FFFU) << 13U, sign = (bits & 0x8000U) << 16U;
  return static_cast<double>(std::bit_cast<float>(sign | magnitude)) * 0x1p112;
}

double f32_value(uint32_t bits) { return static_cast<double>(std::bit_cast<float>(bits)); }

template <class Bits, double (*kValue)(Bits)>
struct Convert {
  [[gnu::always_inline]] static inline void run(const std::byte* in, int64_t count, double* out) {
    for (int64_t i = 0; i < count; ++i) {
      Bits bits;
      __builtin_memcpy(&bits, in + static_cast<size_t>(i) * sizeof bits, sizeof bits);
      out[i] = kValue(bits);
    }
  }
};

#if defined(__x86_64__)
template <class Kernel, class... Args>
__attribute__((target("avx2,fma"))) void run_avx2(Args... args) {
  Kernel::run(args...);
}
#endif

// Fused or not: sums of probes are exact (probes.h), so that no bit of them depends on the CPU.
template <class Kernel, class... Args>
void run_for_cpu(Args... args) {
#if defined(__x86_64__)
  static const bool avx2 =
      __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0;
  if (avx2) return run_avx2<Kernel, Args...>(args...);
#endif
  Kernel::run(args...);
}

}  // namespace

Magnitudes magnitudes(int element_bytes, const std::byte* data, int64_t count) {
  Magnitudes out{0, std::numeric_limits<uint64_t>::max()};
  if (element_bytes == 2)
    run_for_cpu<FindMagnitudes<int16_t, I16x16>, const std::byte*, int64_t, Magnitudes&>(
        data, count, out);
  else if (element_bytes == 4)
    run_for_cpu<FindMagnitudes<int32_t, I32x8>, const std::byte*, int64_t, Magnitudes&>(data, count,
                                                                                        out);
  else
    run_for_cpu<FindMagnitudes<int64_t, I64x4>, const std::byte*, int64_t, Magnitudes&>(data, count,
                                                                                        out);
  return out;
}

void to_doubles(DType dtype, const std::byte* in, int64_t count, double* out) {
  if (dtype == DType::BF16) return run_for_cpu<Convert<uint16_t, bf16_value>>(in, count, out);
  if (dtype == DType::F16) return run_for_cpu<Convert<uint16_t, f16_value>>(in, count, out);
  if (dtype == DType::F32) return run_for_cpu<Convert<uint32_t, f32_value>>(in, count, out);
  std::memcpy(out, in, static_cast<size_t>(count) * sizeof *out);
}

void add_dots(const double* row, const double* const* entries, int64_t count, double* out) {
  run_for_cpu<AddDots>(row, entries, count, out);
}

void add_rows(const double* rows, const double* const* entries, int64_t count, int64_t rank,
              double* const* sums) {
  run_for_cpu<AddRows>(rows, entries, count, rank, sums);
}

}  // namespace moelora::packed
