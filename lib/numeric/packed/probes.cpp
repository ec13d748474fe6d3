#include "lib/numeric/packed/probes.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>

#include "lib/numeric/packed/rounding.h"

namespace moelora::packed {
namespace {

constexpr int64_t kChunk = 1024;
constexpr int64_t kEntryBits = 6;

uint64_t mixed(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31U);
}

int fraction_bits(DType dtype) {
  return dtype == DType::BF16 ? 7 : dtype == DType::F16 ? 10 : dtype == DType::F32 ? 23 : 52;
}

int smallest_exponent(DType dtype) {
  return dtype == DType::F16 ? -14 : dtype == DType::F64 ? -1022 : -126;
}

double bf16_value(uint16_t bits) {
  return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(bits) << 16U));
}

template <class Bits, class F>
void convert(const std::byte* in, int64_t count, double* out, F&& value) {
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, in + static_cast<size_t>(i) * sizeof bits, sizeof bits);
    out[i] = value(bits);
  }
}

void to_doubles(DType dtype, const std::byte* in, int64_t count, double* out) {
  if (dtype == DType::BF16) return convert<uint16_t>(in, count, out, bf16_value);
  if (dtype == DType::F32)
    return convert<uint32_t>(in, count, out, [](uint32_t bits) {
      return static_cast<double>(std::bit_cast<float>(bits));
    });
  if (dtype == DType::F64)
    return convert<uint64_t>(in, count, out,
                             [](uint64_t bits) { return std::bit_cast<double>(bits); });
  convert<uint16_t>(in, count, out, [](uint16_t bits) { return value_of(DType::F16, bits); });
}

// The magnitudes of the elements, as the integers that their bits are.
struct Magnitudes {
  uint64_t largest = 0, smallest = std::numeric_limits<uint64_t>::max();  // that is not zero
};

template <class Bits>
Magnitudes magnitudes(const std::byte* data, int64_t count) {
  constexpr auto kMask = static_cast<Bits>(std::numeric_limits<Bits>::max() >> 1U);
  Bits largest = 0, below = std::numeric_limits<Bits>::max();
  for (int64_t i = 0; i < count; ++i) {
    Bits bits;
    std::memcpy(&bits, data + static_cast<size_t>(i) * sizeof bits, sizeof bits);
    bits = static_cast<Bits>(bits & kMask);
    largest = std::max(largest, bits);
    below = std::min(below, static_cast<Bits>(bits - 1));  // zero becomes the largest
  }
  if (largest == 0) return {};
  return {largest, uint64_t{below} + 1};
}

Magnitudes magnitudes(const Part& part, int64_t count) {
  if (part.bytes() == 2) return magnitudes<uint16_t>(part.data, count);
  if (part.bytes() == 4) return magnitudes<uint32_t>(part.data, count);
  return magnitudes<uint64_t>(part.data, count);
}

// Entries of all probes for a chunk of x.
struct Entries {
  std::array<std::array<double, kChunk>, kProbes> of;

  Entries(Side side, int64_t x0) {
    for (int p = 0; p < kProbes; ++p)
      for (int64_t i = 0; i < kChunk; ++i)
        of[static_cast<size_t>(p)][static_cast<size_t>(i)] =
            static_cast<double>(probe_entry(side, p, x0 + i));
  }
};

// The first chunks are asked for again and again; what lies beyond is made anew.
const Entries& entries(Side side, int64_t chunk) {
  constexpr int64_t kKept = 32;
  thread_local std::array<std::array<std::unique_ptr<Entries>, kKept + 1>, 2> known;
  auto& slot = known[static_cast<size_t>(side)][static_cast<size_t>(std::min(chunk, kKept))];
  if (!slot || chunk >= kKept) slot = std::make_unique<Entries>(side, chunk * kChunk);
  return *slot;
}

double dot(const double* a, const double* b, int64_t count) {
  std::array<double, 8> lanes = {};
  int64_t i = 0;
  for (; i + 8 <= count; i += 8)
    for (size_t l = 0; l < 8; ++l)
      lanes[l] += a[i + static_cast<int64_t>(l)] * b[i + static_cast<int64_t>(l)];
  for (; i < count; ++i) lanes[0] += a[i] * b[i];
  double out = 0;
  for (const double lane : lanes) out += lane;
  return out;
}

// Calls f(chunk of the entries, first x in the part, first entry in the chunk, count).
template <class F>
void for_chunks(int64_t x0, int64_t width, F&& f) {
  for (int64_t x = 0; x < width;) {
    const int64_t chunk = (x0 + x) / kChunk, in_chunk = (x0 + x) % kChunk;
    const int64_t count = std::min(kChunk - in_chunk, width - x);
    f(chunk, x, in_chunk, count);
    x += count;
  }
}

using Sums = std::vector<double>;  // [k * kProbes + probe]

Sums sums_of_a(const Part& part, int64_t width, int64_t x0) {
  Sums out(static_cast<size_t>(part.rank * kProbes), 0.0);
  std::array<double, kChunk> row;
  for_chunks(x0, width, [&](int64_t chunk, int64_t x, int64_t from, int64_t count) {
    const Entries& probe = entries(Side::A, chunk);
    for (int64_t k = 0; k < part.rank; ++k) {
      to_doubles(part.dtype, part.data + (k * width + x) * part.bytes(), count, row.data());
      for (size_t p = 0; p < kProbes; ++p)
        out[static_cast<size_t>(k) * kProbes + p] +=
            dot(row.data(), probe.of[p].data() + from, count);
    }
  });
  return out;
}

Sums sums_of_b(const Part& part, int64_t width, int64_t x0) {
  const auto rank = static_cast<size_t>(part.rank);
  std::array<Sums, kProbes> by_probe;
  by_probe.fill(Sums(rank, 0.0));
  Sums row(rank);
  for_chunks(x0, width, [&](int64_t chunk, int64_t x, int64_t from, int64_t count) {
    const Entries& probe = entries(Side::B, chunk);
    for (int64_t i = 0; i < count; ++i) {
      to_doubles(part.dtype, part.data + (x + i) * part.rank * part.bytes(), part.rank, row.data());
      for (size_t p = 0; p < kProbes; ++p) {
        const double u = probe.of[p][static_cast<size_t>(from + i)];
        double* const sums = by_probe[p].data();
        for (size_t k = 0; k < rank; ++k) sums[k] += u * row[k];
      }
    }
  });
  Sums out(rank * kProbes);
  for (size_t p = 0; p < kProbes; ++p)
    for (size_t k = 0; k < rank; ++k) out[k * kProbes + p] = by_probe[p][k];
  return out;
}

// Term by term in the field; no order, no spread of exponents matters.
void add_in_field(const Part& part, Side side, int64_t width, int64_t x0, ProbeSums& sums) {
  for (int64_t i = 0; i < part.rank * width; ++i) {
    const int64_t k = side == Side::A ? i / width : i % part.rank;
    const int64_t x = side == Side::A ? i % width : i / part.rank;
    const double value = value_of(part.dtype, element(part.data, part.bytes(), i));
    if (value == 0) continue;
    const Field term = Field::of(value);
    for (int p = 0; p < kProbes; ++p) {
      Field& sum = sums.of[static_cast<size_t>(k * kProbes + p)];
      sum = sum + term * Field::of(probe_entry(side, p, x0 + x));
    }
  }
}

}  // namespace

int64_t probe_entry(Side side, int probe, int64_t index) {
  const auto vector = static_cast<uint64_t>(side == Side::A ? probe : kProbes + probe);
  const uint64_t bits = mixed(static_cast<uint64_t>(index) * 2 * kProbes + vector);
  return 2 * static_cast<int64_t>(bits >> 58U) - 63;
}

bool exact_in_double(DType dtype, double smallest, double largest, int64_t terms) {
  const int last_bit =
      std::max(std::ilogb(smallest), smallest_exponent(dtype)) - fraction_bits(dtype);
  const int sum_bits = static_cast<int>(std::bit_width(static_cast<uint64_t>(terms)));
  return std::ilogb(largest) + 1 + static_cast<int>(kEntryBits) + sum_bits - last_bit <= 53;
}

void add_probes(const Part& part, Side side, int64_t width, int64_t x0, ProbeSums& sums) {
  sums.of.resize(static_cast<size_t>(part.rank * kProbes));
  if (!is_float(part.dtype)) sums.finite = false;
  if (!sums.finite) return;
  const Magnitudes m = magnitudes(part, part.rank * width);
  if (m.largest == 0) return;
  const double largest = value_of(part.dtype, m.largest);
  if (!std::isfinite(largest)) {
    sums.finite = false;
    return;
  }
  if (!exact_in_double(part.dtype, value_of(part.dtype, m.smallest), largest, width)) {
    sums.by_doubles = false;
    return add_in_field(part, side, width, x0, sums);
  }
  const Sums exact = side == Side::A ? sums_of_a(part, width, x0) : sums_of_b(part, width, x0);
  for (size_t i = 0; i < exact.size(); ++i) sums.of[i] = sums.of[i] + Field::of(exact[i]);
}

}  // namespace moelora::packed
