#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "lib/base/tensor.h"

namespace moelora {

// Weights of base models that are stored as numbers of few bits and scales, as exact F64 tensors.

// A matrix [out, in] of 4-bit or 8-bit integers with a scale for each group of columns of a row, as
// compressed-tensors' format "pack-quantized" stores it (read in its pack_quantized.py and in the
// known answers of its test_pack_quant.py):
//   packed      I32 [out, ceil(in / (32 / bits))]: value + 2^(bits - 1), the first value lowest
//   scale       F32, F16 or BF16 [out, groups]; groups = in / group size, or 1
//   zero_point  I32 [ceil(out / (32 / bits)), groups], packed the same way but down the rows; or I8
//               [out, groups]; absent for symmetric quantisation
//   group_of    I32 [in] (weight_g_idx): the group of each column, where columns were reordered
struct PackedInts {
  Tensor packed, scale;
  int64_t out = 0, in = 0;
  std::optional<Tensor> zero_point = {}, group_of = {};
};

// bits that make [out, in] fit into `packed`; 0 when neither 4 nor 8 does. Matrices of fewer than 5
// columns, where both do, count as 4-bit.
int packed_bits(const Tensor& packed, int64_t in);

// F64 [out, in], each value (q - zero) * scale exactly. (Marlin and transformers round that product
// to the model's type.) Throws Error at `where` when dtypes or shapes do not fit, and on reading
// when group_of points outside the groups.
Tensor packed_ints_tensor(const PackedInts& parts, const std::string& where);

inline constexpr int64_t kFp8Block = 128;

// FP8 E4M3 as numbers (no infinity; 0x7F and 0xFF are NaN; subnormals below 2^-6).
const std::array<double, 256>& e4m3_values();

// FP8 weights [out, in] with one scale (F32, F16 or BF16) for each 128x128 block,
// [ceil(out/128), ceil(in/128)], as DeepSeek-V3, Qwen3-FP8 and others store them in `weight` and
// `weight_scale_inv`, which multiplies despite its name. F64 [out, in], exact. Throws Error at
// `where` when dtypes or shapes do not fit.
Tensor block_fp8_tensor(const Tensor& weight, const Tensor& scale, const std::string& where);

}  // namespace moelora
