#pragma once

#include <array>
#include <string>

#include "lib/base/tensor.h"

namespace moelora {

inline constexpr int64_t kFp8Block = 128;

// FP8 E4M3 as numbers (no infinity; 0x7F and 0xFF are NaN; subnormals below 2^-6).
const std::array<double, 256>& e4m3_values();

// FP8 weights [out, in] with one scale (F32, F16 or BF16) for each 128x128 block,
// [ceil(out/128), ceil(in/128)], as DeepSeek-V3, Qwen3-FP8 and others store them in `weight` and
// `weight_scale_inv`, which multiplies despite its name. F64 [out, in], exact. Throws Error at
// `where` when dtypes or shapes do not fit.
Tensor block_fp8_tensor(const Tensor& weight, const Tensor& scale, const std::string& where);

}  // namespace moelora
