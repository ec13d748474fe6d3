#pragma once

#include <cstdint>

namespace moelora {

// Bits of one value in another format; the rounding and the NaN rule of cast.h. Written without
// branches, so that compilers vectorise loops over them.
uint32_t f32_from_bf16(uint16_t bits);
uint32_t f32_from_f16(uint16_t bits);
uint16_t bf16_from_f32(uint32_t bits);
uint16_t f16_from_f32(uint32_t bits);
uint16_t bf16_from_f64(uint64_t bits);  // these two round once, from all 53 bits
uint16_t f16_from_f64(uint64_t bits);

}  // namespace moelora
