#pragma once

#include "lib/engine/buffers.h"
#include "tests/adapter/decode.h"

namespace moelora::test {

// Writes what a block computes into the delta of its module. Returns how many elements another rank
// has put otherwise there.
size_t put_block(const ServedBlock& block, Matrix& delta);

}  // namespace moelora::test
