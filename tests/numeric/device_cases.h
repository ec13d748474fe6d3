#pragma once

#include <string>

#include "lib/numeric/device_forward.h"
#include "tests/numeric/made_layer.h"

namespace moelora::test {

// Runs the layer on the device along one path and checks every stage against double
// (tests/numeric/stage_check.h), and the result against the double forward. Doctest CHECKs.
struct DeviceCase {
  kernels::Path path = kernels::Path::per_expert;
  bool keep_delta = false;
};
void check_on_device(Device& device, const LayerCase& c, const MadeLayer& made, int64_t tokens,
                     const DeviceCase& how);

// All three paths, base and delta together and apart.
void check_all_paths(Device& device, const LayerCase& c, const MadeLayer& made, int64_t tokens);

}  // namespace moelora::test
