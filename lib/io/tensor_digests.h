#pragma once

#include <map>
#include <string>

#include "lib/base/tensor.h"

namespace moelora {

// XXH3-128 of every tensor's bytes (dtype and shape are not part of it), evaluated together as the
// writer would: tensors that share source bytes are produced in one pass.
std::map<std::string, std::string> digest_tensors(const TensorMap& tensors, int threads);

}  // namespace moelora
