#include "lib/compare/bits/rounding.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

namespace moelora::packed {
namespace {

// A binary format with `fraction` stored bits below a hidden one.
struct Format {
  int bits, exponent_bits, fraction;
  int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  int largest_exponent() const { return (1 << exponent_bits) - 1; }
};

Format format_of(DType dtype) {
  switch (dtype) {
    case DType::F64:
      return {64, 11, 52};
    case DType::F16:
      return {16, 5, 10};
    case DType::BF16:
      return {16, 8, 7};
    default:
      return {32, 8, 23};
  }
}

uint64_t sign_bit(const Format& f) { return uint64_t{1} << (f.bits - 1); }

uint64_t infinity_bits(const Format& f) {
  return static_cast<uint64_t>(f.largest_exponent()) << f.fraction;
}

// `magnitude` of a finite positive value, in units of 2^(unit), rounded to an integer.
uint64_t rounded(double magnitude, int unit) {
  return static_cast<uint64_t>(std::nearbyint(std::ldexp(magnitude, -unit)));
}

uint64_t magnitude_bits(const Format& f, double magnitude) {
  if (std::isinf(magnitude)) return infinity_bits(f);
  if (magnitude == 0) return 0;
  const int exponent = std::max(std::ilogb(magnitude), 1 - f.bias());
  // With the hidden bit left in, adding carries over into the exponent as the format means it.
  const uint64_t fraction = rounded(magnitude, exponent - f.fraction);
  const uint64_t bits = (static_cast<uint64_t>(exponent + f.bias() - 1) << f.fraction) + fraction;
  return std::min(bits, infinity_bits(f));
}

// The common pair by integers, in a form that compilers vectorise.
uint16_t bf16_of_f32(uint32_t bits) {
  const uint32_t nan = (bits & 0x7FFFFFFFU) > 0x7F800000U ? 1U : 0U;
  const uint32_t even = (bits >> 16U) & 1U;
  const uint32_t rounded_up = (bits + 0x7FFFU + even) >> 16U;
  return static_cast<uint16_t>(nan != 0 ? (bits >> 16U) | 0x40U : rounded_up);
}

template <class In, class Out, class F>
void map(int64_t count, const std::byte* in, std::byte* out, F&& f) {
  for (int64_t i = 0; i < count; ++i) {
    In x;
    std::memcpy(&x, in + static_cast<size_t>(i) * sizeof(In), sizeof(In));
    const Out y = f(x);
    std::memcpy(out + static_cast<size_t>(i) * sizeof(Out), &y, sizeof(Out));
  }
}

}  // namespace

bool is_nan(DType dtype, uint64_t bits) {
  const Format f = format_of(dtype);
  return (bits & ~sign_bit(f)) > infinity_bits(f);
}

bool is_infinite(DType dtype, uint64_t bits) {
  const Format f = format_of(dtype);
  return (bits & ~sign_bit(f)) == infinity_bits(f);
}

double value_of(DType dtype, uint64_t bits) {
  const Format f = format_of(dtype);
  const double sign = (bits & sign_bit(f)) != 0 ? -1.0 : 1.0;
  const auto magnitude = static_cast<int64_t>(bits & ~sign_bit(f));
  const auto exponent = static_cast<int>(magnitude >> f.fraction);
  const int64_t fraction = magnitude & ((int64_t{1} << f.fraction) - 1);
  if (exponent == f.largest_exponent())
    return fraction != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  const int64_t hidden = exponent != 0 ? int64_t{1} << f.fraction : 0;
  return sign * std::ldexp(static_cast<double>(fraction + hidden),
                           std::max(exponent, 1) - f.bias() - f.fraction);
}

uint64_t bits_of(DType dtype, double value) {
  const Format f = format_of(dtype);
  if (std::isnan(value)) return infinity_bits(f) | (uint64_t{1} << (f.fraction - 1));
  const uint64_t sign = std::signbit(value) ? sign_bit(f) : 0;
  return sign | magnitude_bits(f, std::fabs(value));
}

void cast(DType from, DType to, int64_t count, const std::byte* in, std::byte* out) {
  if (from == DType::F32 && to == DType::BF16)
    return map<uint32_t, uint16_t>(count, in, out, bf16_of_f32);
  if (from == DType::BF16 && to == DType::F32)
    return map<uint16_t, uint32_t>(count, in, out,
                                   [](uint16_t x) { return static_cast<uint32_t>(x) << 16U; });
  const int from_bytes = dtype_bytes(from), to_bytes = dtype_bytes(to);
  for (int64_t i = 0; i < count; ++i) {
    const uint64_t bits = bits_of(to, value_of(from, element(in, from_bytes, i)));
    std::memcpy(out + i * to_bytes, &bits, static_cast<size_t>(to_bytes));  // little-endian
  }
}

uint64_t folded(DType dtype, uint64_t bits, double scale, FoldRounding rounding) {
  const double b = value_of(dtype, bits);
  if (rounding == FoldRounding::once || dtype == DType::F64) return bits_of(dtype, b * scale);
  const float product = static_cast<float>(b) * static_cast<float>(scale);
  return bits_of(dtype, static_cast<double>(product));
}

}  // namespace moelora::packed
