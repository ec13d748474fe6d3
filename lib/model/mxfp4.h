#pragma once

#include <string>

#include "lib/base/tensor.h"

namespace moelora {

// The BF16 tensor that MXFP4 blocks [..., G, 16] and scales [..., G], both U8, stand for:
// [..., 32 * G], decoded when it is read (mxfp4_decode.h), at several GB/s a core. For gpt-oss the
// result is [E, out, in]; transformers holds its transpose. Blocks and scales must be whole tensors
// of a file or of memory, not views. Throws Error at `where` when dtypes or shapes do not fit;
// reading throws Error at a scale above 252 (NaN, or values beyond BF16).
Tensor mxfp4_tensor(const Tensor& blocks, const Tensor& scales, const std::string& where);

}  // namespace moelora
