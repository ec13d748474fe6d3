#pragma once

#include <span>

#include "lib/adapter/delta_pair.h"
#include "lib/engine/buffers.h"

namespace moelora {

// What all ranks of a server compute, as one pair for each delta: the blocks of a delta side by
// side in the rank, each at its rows and columns and zero elsewhere. Keys are meant_deltas()'s;
// values are the server's, in F64 where blocks differ in scale. Rows and columns beyond the
// model's are left out. Where several ranks have a block of one place, the first counts.
Deltas served_pairs(std::span<const ServedBlock> blocks, const ModelSpec& spec);

}  // namespace moelora
