#pragma once

#include <string>
#include <vector>

#include "lib/engine/served_adapter.h"

namespace moelora::test {

// What a server finds in an adapter's folder: headers and config. A pickle's tensors are taken from
// the safetensors of the folder named like it without "_bin".
ServedAdapter served_from_folder(const std::string& folder);

// The tensors of its files, in their order.
std::vector<TensorMap> values_from_folder(const std::string& folder);

}  // namespace moelora::test
