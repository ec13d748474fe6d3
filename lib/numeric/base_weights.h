#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/model/model_spec.h"

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

// The routed experts' own weights of one MoE layer, decoded when rows of them are read. Every
// weight is exact: the dtype of a Tensor is that of the file where it is a float type, BF16 for
// MXFP4 (whose values are BF16 values), and F64 for what is a product with a scale (INT4, INT8,
// FP8), which needs up to 32 significant bits.
struct BaseWeights {
  // By expert: gate and up [I, H] (gate is absent where experts are not gated), down [H, I].
  std::map<Projection, std::vector<Tensor>> weights;
  std::map<Projection, std::vector<Tensor>> biases;  // [I], [H]; absent without biases
  std::string form;  // "BF16", "MXFP4", "INT4 in groups of 32", "FP8 in blocks of 128x128", ...

  const Tensor& weight(Projection p, int64_t e) const {
    return weights.at(p)[static_cast<size_t>(e)];
  }
  const Tensor* bias(Projection p, int64_t e) const {
    const auto found = biases.find(p);
    return found == biases.end() ? nullptr : &found->second[static_cast<size_t>(e)];
  }
};

// Layer `layer` out of the tensors of a checkpoint, in whichever form its experts are stored:
//   F32, F16, BF16, MXFP4    as split_experts() of lib/model reads them
//   compressed-tensors pack-quantized INT4 or INT8, one expert after the other
//     (NAME.weight_packed, weight_scale, weight_shape; lib/numeric/base_weights.h)
//   FP8 E4M3 with a scale per block (NAME.weight, weight_scale_inv; lib/numeric/base_weights.h)
// Throws Error at `where` when a tensor is missing or does not fit.
BaseWeights read_base_weights(const TensorMap& tensors, const ModelSpec& spec, int layer,
                              const std::string& where);

// BF16 numbers that stand in for a base that is not there: uniform, of variance 1/in (biases of
// variance 1/100), a pure function of seed, layer, projection and expert.
struct SyntheticBase {
  int64_t experts, width, intermediate;
  bool gated = true, biases = false;
  uint64_t seed = 0;
  int layer = 0;
};
BaseWeights synthetic_base(const SyntheticBase& shape);

}  // namespace moelora
