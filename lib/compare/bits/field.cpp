#include "lib/compare/bits/field.h"

#include <algorithm>
#include <array>
#include <bit>

namespace moelora::packed {
namespace {

__extension__ using uint128 = unsigned __int128;

constexpr int kLargestExponent = 2400;
constexpr uint64_t kLow = (uint64_t{1} << 61) - 1;
constexpr uint64_t kBelow = 2373;  // p = 2^61 - this

constexpr uint64_t reduced(uint128 value) {
  // high * 2^61 + low is high * 2373 + low; twice brings 2^122 below 2^62.
  value = (value >> 61) * kBelow + (value & kLow);
  value = (value >> 61) * kBelow + (value & kLow);
  auto out = static_cast<uint64_t>(value);
  while (out >= Field::kPrime) out -= Field::kPrime;
  return out;
}

struct Powers {
  std::array<uint64_t, 2 * kLargestExponent + 1> of = {};
};

const Powers& powers() {
  static const Powers all = [] {
    Powers out;
    uint64_t up = 1, down = 1;
    out.of[kLargestExponent] = 1;
    for (size_t i = 1; i <= kLargestExponent; ++i) {
      up = up * 2 >= Field::kPrime ? up * 2 - Field::kPrime : up * 2;
      down = down % 2 == 0 ? down / 2 : (down + Field::kPrime) / 2;
      out.of[kLargestExponent + i] = up;
      out.of[kLargestExponent - i] = down;
    }
    return out;
  }();
  return all;
}

}  // namespace

Field Field::of(int64_t value) { return of(int128{value}); }

Field Field::of(int128 value) {
  const auto bits = static_cast<uint128>(value);
  const uint64_t residue = reduced(value < 0 ? -bits : bits);
  return Field(value < 0 && residue != 0 ? kPrime - residue : residue);
}

Field Field::of(double value) {
  constexpr int kFraction = 52, kBias = 1023;
  constexpr uint64_t kHidden = uint64_t{1} << kFraction;
  const auto bits = std::bit_cast<uint64_t>(value);
  const auto exponent = static_cast<int>(bits >> kFraction & 0x7FFU);
  const uint64_t fraction = bits & (kHidden - 1);
  const auto significand = static_cast<int64_t>(exponent == 0 ? fraction : fraction | kHidden);
  return of(bits >> 63U != 0 ? -significand : significand) *
         power_of_two(std::max(exponent, 1) - kBias - kFraction);
}

Field Field::power_of_two(int exponent) {
  return Field(powers().of[static_cast<size_t>(kLargestExponent + exponent)]);
}

Field operator+(Field a, Field b) {
  const uint64_t sum = a.residue_ + b.residue_;
  return Field(sum >= Field::kPrime ? sum - Field::kPrime : sum);
}

Field operator-(Field a, Field b) {
  return Field(a.residue_ >= b.residue_ ? a.residue_ - b.residue_
                                        : a.residue_ + Field::kPrime - b.residue_);
}

Field operator*(Field a, Field b) { return Field(reduced(uint128{a.residue_} * b.residue_)); }

Field Field::inverse() const {  // a^(p-2)
  Field out = of(int64_t{1}), power = *this;
  for (uint64_t bits = kPrime - 2; bits != 0; bits >>= 1U) {
    if ((bits & 1U) != 0) out = out * power;
    power = power * power;
  }
  return out;
}

}  // namespace moelora::packed
