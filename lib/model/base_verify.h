#pragma once

#include <cstdint>
#include <string>

#include "lib/base/tensor.h"
#include "lib/model/model_spec.h"

namespace moelora {

// Compares a converted checkpoint, read back from disk, with the one it was made from, by a second
// way of evaluating that shares nothing with the conversion: every expert's gate, up and down
// matrix (and bias) is picked out of either by plain index arithmetic and the one-value-at-a-time
// MXFP4 decoder; every other tensor is compared byte by byte, after the cast where its dtype
// differs. Returns how many matrices, biases and tensors were compared.
// Throws Error at "`where`: TENSOR" for the first that differs, or that only one of them has.
// Tensors of `in` that `out` left out with a whole layer (--layers) are no difference.
int64_t verify_base(const TensorMap& in, const TensorMap& out, const ModelSpec& spec, int threads,
                    const std::string& where);

}  // namespace moelora
