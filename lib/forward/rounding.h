#pragma once

#include <bit>
#include <cstdint>

#include "lib/forward/matrix.h"

namespace moelora {

// To the nearest BF16 value, ties to even. Infinities and NaN stay.
inline float rounded_to_bf16(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  if ((bits & 0x7F800000U) == 0x7F800000U) return value;
  return std::bit_cast<float>((bits + 0x7FFFU + (bits >> 16 & 1U)) & 0xFFFF0000U);
}

inline void round_to_bf16(Matrix<float>& values) {
  values = values.unaryExpr([](float value) { return rounded_to_bf16(value); });
}
inline void round_to_bf16(Matrix<double>&) {}  // never asked for

}  // namespace moelora
