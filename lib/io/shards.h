#pragma once

#include <string>

#include "lib/io/weights.h"

namespace moelora {

// The weights that the index at `index_path` describes. Refuses an index that is malformed or lies
// about its shards; what is only odd (total_size, names of files and tensors it leaves out) becomes
// a warning. Shards may be symbolic links to anywhere, as in the hub's cache. Throws Error.
Weights open_shards(const std::string& index_path);

}  // namespace moelora
