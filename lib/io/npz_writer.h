#pragma once

#include <string>

#include "lib/base/tensor.h"

namespace moelora {

// The bytes of a .npz archive as numpy.savez writes one, without compression and without the time
// of day: same arrays, same bytes. Throws Error for more bytes than read_npz() takes, or a type
// that numpy does not have. REQUIRES: names are ASCII.
std::string npz_bytes(const TensorMap& arrays);

}  // namespace moelora
