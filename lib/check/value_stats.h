#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "lib/base/tensor.h"

namespace moelora {

// What one pass over a tensor's values tells. Only float dtypes have statistics; of others `known`
// is false.
struct ValueStats {
  bool known = false;
  int64_t elements = 0;
  int64_t nan = 0, inf = 0;
  int64_t first_bad = -1;  // row-major index of the first NaN or Inf
  double max_abs = 0;      // of the finite ones
  double sum = 0, sum_squares = 0;
  int64_t zeros = 0;
  double max_bf16_error = 0;  // largest relative change of a finite value by rounding to bf16
  double std_dev() const;
};

// One entry a tensor, by name. Streams: each byte is read once, memory stays bounded.
std::map<std::string, ValueStats> scan_values(const TensorMap& tensors, int threads);

}  // namespace moelora
