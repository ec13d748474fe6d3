#pragma once

#include <cstddef>
#include <cstdint>

#include "lib/base/dtype.h"

namespace moelora {

// `count` elements of type `from` at `in` as `to` at `out`. REQUIRES: float types; the ranges do
// not overlap.
void cast_elements(DType from, DType to, int64_t count, const std::byte* in, std::byte* out);

// Bits of one value in another format; the rounding and the NaN rule of cast.h. Written without
// branches, so that compilers vectorise loops over them.
uint32_t f32_from_bf16(uint16_t bits);
uint32_t f32_from_f16(uint16_t bits);
uint16_t bf16_from_f32(uint32_t bits);
uint16_t f16_from_f32(uint32_t bits);
uint16_t bf16_from_f64(uint64_t bits);  // these two round once, from all 53 bits
uint16_t f16_from_f64(uint64_t bits);

}  // namespace moelora
