#pragma once

#include <cstdint>
#include <string>

#include "lib/base/tensor.h"

namespace moelora::packed {

// A tensor as it lies in its file.
struct Stored {
  std::string name;
  DType dtype;
  Shape shape;
  SourcePtr source;    // null when the tensor has no elements
  int64_t offset = 0;  // of its first element in `source`
};

// The bytes of a tensor where they lie in one piece of a file; what is computed is evaluated, once
// and in memory.
Stored stored_tensor(const std::string& name, const Tensor& tensor);

}  // namespace moelora::packed
