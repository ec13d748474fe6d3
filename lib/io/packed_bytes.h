#pragma once

#include "lib/base/tensor.h"

namespace moelora {

// A tensor of a dtype below one byte (F4, F6_*) as the bytes it is stored in, U8 [bytes]; any other
// tensor as it is. Such a tensor is only ever passed through whole (lib/base/tensor.h).
Tensor in_whole_bytes(const Tensor& tensor);

}  // namespace moelora
