#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/base/tensor.h"

namespace moelora {

using NamedTensor = TensorMap::value_type;

// As SafetensorsPlan, without a map: for tens of thousands of tensors.
struct HeaderPlan {
  std::string header;                       // the 8 length bytes included
  std::vector<const NamedTensor*> tensors;  // in the order of the file
  std::vector<uint64_t> begin;              // absolute offset of each
  uint64_t file_size = 0;
};
HeaderPlan plan_header(std::vector<const NamedTensor*> tensors,
                       const std::map<std::string, std::string>& metadata);

}  // namespace moelora
