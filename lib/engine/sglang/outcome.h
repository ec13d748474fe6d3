#pragma once

#include <vector>

#include "lib/engine/sglang/server.h"

namespace moelora::sglang {

// What became of every tensor of adapter `index`, and an event for each that is not served whole
// and in place. Call once, after use().
std::vector<TensorFate> tensor_fates(Server& server, size_t index);

}  // namespace moelora::sglang
