#pragma once

#include <cstdint>

namespace moelora {

// Vectors of the compiler, g++ and clang alike: two SSE registers, or one where the CPU has AVX2.
// Functions take them by reference: how they are passed by value depends on the CPU.
using U32x8 = uint32_t __attribute__((vector_size(32)));
using I32x8 = int32_t __attribute__((vector_size(32)));
using F32x8 = float __attribute__((vector_size(32)));
using I64x4 = int64_t __attribute__((vector_size(32)));
using F64x4 = double __attribute__((vector_size(32)));

}  // namespace moelora
