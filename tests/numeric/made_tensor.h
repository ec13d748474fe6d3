#pragma once

#include <cstring>
#include <memory>
#include <vector>

#include "lib/base/tensor.h"

namespace moelora::test {

// A tensor over these values, whose type must be as wide as the dtype's.
template <class T>
Tensor made_tensor(DType dtype, const Shape& shape, const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return Tensor(std::make_shared<MemorySource>(dtype, std::move(bytes), "made"), shape);
}

}  // namespace moelora::test
