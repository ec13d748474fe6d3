#pragma once

#include <cstddef>
#include <cstdint>
#include <string>

#include "lib/base/tensor.h"

namespace moelora {

// MXFP4 (OCP Microscaling): blocks of 32 FP4 E2M1 values, 16 bytes, low nibble first, with one
// E8M0 scale each. Value = table[code] * 2^(scale - 127); codes 0..7 are 0, .5, 1, 1.5, 2, 3, 4, 6,
// codes 8..15 their negatives (8 is -0). The order is that of gpt-oss (openai/gpt-oss
// torch/weights.py), which transformers decodes.
inline constexpr int kMxfp4Block = 32;       // values
inline constexpr int kMxfp4BlockBytes = 16;  // their bytes, without the scale

// Up to this scale every product is a BF16 value, exactly. Above it some would be infinite, and
// 255 means NaN: no trained weight has such a scale, so whoever decodes refuses it.
inline constexpr uint8_t kMxfp4MaxScale = 252;

// Decodes `count` blocks into 32 * count BF16 values. Above kMxfp4MaxScale the values that do not
// fit are infinite, and all are NaN at 255.
void mxfp4_decode(const uint8_t* blocks, const uint8_t* scales, int64_t count, uint16_t* out);

// The same, one value after the other: what the fast ones are compared with.
void mxfp4_decode_simple(const uint8_t* blocks, const uint8_t* scales, int64_t count,
                         uint16_t* out);

// The BF16 tensor that MXFP4 blocks [..., G, 16] and scales [..., G], both U8, stand for:
// [..., 32 * G], decoded when it is read, at several GB/s a core. For gpt-oss the
// result is [E, out, in]; transformers holds its transpose. Blocks and scales must be whole tensors
// of a file or of memory, not views. Throws Error at `where` when dtypes or shapes do not fit;
// reading throws Error at a scale above 252 (NaN, or values beyond BF16).
Tensor mxfp4_tensor(const Tensor& blocks, const Tensor& scales, const std::string& where);

}  // namespace moelora
