#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/model/model_spec.h"

namespace moelora {

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
//   F32, F16, BF16, MXFP4    as lib/model/expert_tensors.h reads them
//   compressed-tensors pack-quantized INT4 or INT8, one expert after the other
//     (NAME.weight_packed, weight_scale, weight_shape; lib/numeric/quantized.h)
//   FP8 E4M3 with a scale a block (NAME.weight, weight_scale_inv; lib/numeric/quantized.h)
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
