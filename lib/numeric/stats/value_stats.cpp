#include "lib/numeric/stats/value_stats.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lib/base/arena.h"
#include "lib/base/cast.h"
#include "lib/base/parallel.h"
#include "lib/io/run_job.h"

namespace moelora {
namespace {

// Vectors of the compiler, g++ and clang alike: two SSE registers, or one where the CPU has AVX2.
// Functions take them by reference: how they are passed by value depends on the CPU.
using U32x8 = uint32_t __attribute__((vector_size(32)));
using I32x8 = int32_t __attribute__((vector_size(32)));
using F32x8 = float __attribute__((vector_size(32)));

constexpr size_t kStreams = 2;         // independent sums, to hide the latency of an addition
constexpr int64_t kStep = 64;          // bytes: one vector per stream
constexpr int64_t kChunkBytes = 8192;  // whose sums are kept in single precision
// From here on squares, or a chunk's sum of them, could overflow; infinities and NaN lie above.
constexpr uint32_t kLarge = std::bit_cast<uint32_t>(0x1p49F);
// What is smaller counts as 0 in the sums: its square is denormal, hence slow, and nothing.
constexpr int32_t kTiny = std::bit_cast<int32_t>(0x1p-60F);

// What the elements at one place of every step add up to.
struct Stream {
  I32x8 most = {}, zeros = {};
  F32x8 squares = {}, error = {};

  // Floats as bits. The bits of |x| are ordered as |x| is.
  template <bool kRounds>
  [[gnu::always_inline]] inline void add(const U32x8& bits) {
    const I32x8 magnitude = reinterpret_cast<I32x8>(bits) & 0x7FFFFFFF;
    most = magnitude > most ? magnitude : most;
    zeros -= magnitude == 0;
    const U32x8 kept = bits & reinterpret_cast<U32x8>(magnitude > kTiny);
    const F32x8 x = reinterpret_cast<F32x8>(kept);
    squares += x * x;
    if constexpr (kRounds) add_rounding(kept, x);
  }

  // |bf16(x) - x| / |x|; 0 for 0.
  [[gnu::always_inline]] inline void add_rounding(const U32x8& bits, const F32x8& x) {
    const U32x8 rounded = (bits + 0x7FFFU + (bits >> 16 & 1U)) & 0xFFFF0000U;
    const F32x8 ratio =
        (reinterpret_cast<F32x8>(rounded) - x) / (x + std::numeric_limits<float>::min());
    const F32x8 here = reinterpret_cast<F32x8>(reinterpret_cast<U32x8>(ratio) & 0x7FFFFFFFU);
    error = here > error ? here : error;
  }
};

using Streams = std::array<Stream, kStreams>;

// Halves of words of F16 as the floats they are; lib/base/cast.cpp says how.
[[gnu::always_inline]] inline void widen_f16(const U32x8& half, U32x8& out) {
  const U32x8 sign = (half & 0x8000U) << 16, magnitude = (half & 0x7FFFU) << 13;
  const U32x8 normal = magnitude + ((127U - 15U) << 23);
  const F32x8 small = reinterpret_cast<F32x8>(magnitude + (113U << 23)) - 0x1p-14F;
  const U32x8 special = magnitude + ((255U - 31U) << 23);
  out = magnitude < (0x0400U << 13) ? reinterpret_cast<U32x8>(small) : normal;
  out = sign | (magnitude >= (0x7C00U << 13) ? special : out);
}

// A word of two BF16 is two floats at little cost: a BF16 is the top half of a float.
template <DType kType>
[[gnu::always_inline]] inline void scan_steps(const std::byte* values, int64_t bytes,
                                              Streams& streams) {
  for (int64_t at = 0; at < bytes; at += kStep)
    for (size_t s = 0; s < kStreams; ++s) {
      U32x8 words;
      __builtin_memcpy(&words, values + at + s * 32, sizeof words);
      if constexpr (kType == DType::F32) {
        streams[s].add<true>(words);
      } else if constexpr (kType == DType::BF16) {
        streams[s].add<false>(words << 16);
        streams[s].add<false>(words & 0xFFFF0000U);
      } else {
        U32x8 low, high;
        widen_f16(words & 0xFFFFU, low);
        widen_f16(words >> 16, high);
        streams[s].add<false>(low);
        streams[s].add<false>(high);
      }
    }
}

#if defined(__x86_64__)
template <DType kType>
__attribute__((target("avx2"))) void scan_avx2(const std::byte* values, int64_t bytes,
                                               Streams& streams) {
  scan_steps<kType>(values, bytes, streams);
}
#endif

struct ChunkStats {
  bool sound = true;  // else something is not finite, or a sum may be off
  int64_t zeros = 0;
  double most = 0, squares = 0, error = 0;

  void add(const Stream& s) {
    for (int i = 0; i < 8; ++i) {
      sound = sound && static_cast<uint32_t>(s.most[i]) < kLarge;
      most = std::max(most, static_cast<double>(std::bit_cast<float>(int32_t{s.most[i]})));
      zeros += s.zeros[i];
      squares += static_cast<double>(s.squares[i]);
      error = std::max(error, static_cast<double>(s.error[i]));
    }
  }
};

// Of whole steps.
template <DType kType>
ChunkStats scan_words(const std::byte* values, int64_t bytes) {
  Streams streams;
#if defined(__x86_64__)
  static const bool avx2 = __builtin_cpu_supports("avx2") != 0;
  if (avx2)
    scan_avx2<kType>(values, bytes, streams);
  else
#endif
    scan_steps<kType>(values, bytes, streams);
  ChunkStats out;
  for (const Stream& stream : streams) out.add(stream);
  return out;
}

ChunkStats scan_chunk(DType dtype, const std::byte* values, int64_t bytes) {
  if (dtype == DType::BF16) return scan_words<DType::BF16>(values, bytes);
  if (dtype == DType::F16) return scan_words<DType::F16>(values, bytes);
  return scan_words<DType::F32>(values, bytes);
}

void add_chunk(const ChunkStats& chunk, int64_t elements, ValueStats& stats) {
  stats.elements += elements;
  stats.zeros += chunk.zeros;
  stats.sum_squares += chunk.squares;
  stats.max_abs = std::max(stats.max_abs, chunk.most);
  stats.max_bf16_error = std::max(stats.max_bf16_error, chunk.error);
}

double bf16_error(double x) {
  const uint16_t rounded = bf16_from_f64(std::bit_cast<uint64_t>(x));
  const double back = static_cast<double>(std::bit_cast<float>(f32_from_bf16(rounded)));
  return std::fabs(back - x) / std::fabs(x);
}

void add_value(double x, bool rounds, int64_t index, ValueStats& stats) {
  ++stats.elements;
  if (!std::isfinite(x)) {
    ++(std::isnan(x) ? stats.nan : stats.inf);
    if (stats.first_bad < 0) stats.first_bad = index;
    return;
  }
  if (x == 0) {
    ++stats.zeros;
    return;
  }
  stats.max_abs = std::max(stats.max_abs, std::fabs(x));
  stats.sum_squares += x * x;
  if (rounds) stats.max_bf16_error = std::max(stats.max_bf16_error, bf16_error(x));
}

}  // namespace

void add_values_simple(DType dtype, const std::byte* values, int64_t count, int64_t first,
                       ValueStats& stats) {
  std::array<double, 512> held;
  constexpr auto kMost = static_cast<int64_t>(held.size());
  for (int64_t at = 0; at < count; at += kMost) {
    const int64_t n = std::min(kMost, count - at);
    cast_elements(dtype, DType::F64, n, values + at * dtype_bytes(dtype),
                  reinterpret_cast<std::byte*>(held.data()));
    for (int64_t i = 0; i < n; ++i)
      add_value(held[static_cast<size_t>(i)], dtype == DType::F32, first + at + i, stats);
  }
}

void add_values(DType dtype, const std::byte* values, int64_t count, int64_t first,
                ValueStats& stats) {
  const int64_t width = dtype_bytes(dtype);
  while (dtype != DType::F64 && count * width >= kStep) {
    const int64_t bytes = std::min(kChunkBytes, count * width / kStep * kStep), n = bytes / width;
    const ChunkStats chunk = scan_chunk(dtype, values, bytes);
    if (chunk.sound)
      add_chunk(chunk, n, stats);
    else
      add_values_simple(dtype, values, n, first, stats);
    values += bytes;
    first += n;
    count -= n;
  }
  add_values_simple(dtype, values, count, first, stats);
}

double ValueStats::root_mean_square() const {
  const auto finite = static_cast<double>(elements - nan - inf);
  return finite <= 0 ? 0 : std::sqrt(sum_squares / finite);
}

// ---- all tensors of an adapter ----

namespace {

void merge_stats(ValueStats& into, const ValueStats& part) {
  into.known = into.known || part.known;
  into.elements += part.elements;
  into.nan += part.nan;
  into.inf += part.inf;
  into.zeros += part.zeros;
  into.sum_squares += part.sum_squares;
  into.max_abs = std::max(into.max_abs, part.max_abs);
  into.max_bf16_error = std::max(into.max_bf16_error, part.max_bf16_error);
  if (part.first_bad >= 0 && (into.first_bad < 0 || part.first_bad < into.first_bad))
    into.first_bad = part.first_bad;
}

// Of a job: its values, and as much again that they are read from, stay in the second-level cache.
// Views of the same bytes stay together up to the larger limit.
constexpr JobLimits kLimits = {1 << 20, 16 << 20};

// One entry per block.
std::vector<ValueStats> scan_job(TensorList tensors, const Job& job, Arena& arena) {
  const std::byte* values = run_job(tensors, job, arena).data();
  std::vector<ValueStats> out(job.blocks.size());
  for (size_t i = 0; i < out.size(); ++i) {
    const Block& block = job.blocks[i];
    const DType dtype = tensors[block.item]->dtype();
    add_values(dtype, values, block.count, block.first, out[i]);
    values += block.count * dtype_bytes(dtype);
  }
  return out;
}

}  // namespace

std::map<std::string, ValueStats> scan_values(const TensorMap& tensors, int threads) {
  std::map<std::string, ValueStats> out;
  std::vector<const Tensor*> stored;
  std::vector<ValueStats*> stats;  // of `stored`
  for (const auto& [name, tensor] : tensors) {
    ValueStats& here = out[name];
    here.known = is_float(tensor.dtype());
    if (!here.known || tensor.elements() == 0) continue;
    if (tensor.pieces().empty()) {
      here.elements = here.zeros = tensor.elements();
      continue;
    }
    stored.push_back(&tensor);
    stats.push_back(&here);
  }
  const std::vector<Job> jobs = plan_jobs(stored, kLimits);
  std::vector<std::vector<ValueStats>> parts(jobs.size());
  std::vector<Arena> arenas(static_cast<size_t>(threads > 0 ? threads : available_threads()));
  parallel_for(static_cast<int64_t>(jobs.size()), threads, [&](int64_t item, int worker) {
    const auto j = static_cast<size_t>(item);
    parts[j] = scan_job(stored, jobs[j], arenas[static_cast<size_t>(worker)]);
  });
  for (size_t j = 0; j < jobs.size(); ++j)
    for (size_t i = 0; i < parts[j].size(); ++i)
      merge_stats(*stats[jobs[j].blocks[i].item], parts[j][i]);
  return out;
}

Shape coordinates(const Shape& shape, int64_t index) {
  Shape out(shape.size());
  for (size_t d = shape.size(); d-- > 0;) {
    out[d] = index % shape[d];
    index /= shape[d];
  }
  return out;
}

}  // namespace moelora
