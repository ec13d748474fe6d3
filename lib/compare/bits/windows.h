#pragma once

#include <cstdint>
#include <vector>

#include "lib/compare/bits/pairing.h"

namespace moelora::packed {

// A part of one side of a group of pairings that is read at once.
struct Window {
  size_t group;
  Side side;
  Box box;
};

// Cuts one side of a group into windows of about `bytes` of both adapters together: by x where some
// layout has the experts of one rank side by side, else by experts. Where that would break the runs
// of the other adapter, windows are larger, up to `most`.
std::vector<Window> windows_of(const Table& packed, const Table& source, const Pairings& pairings,
                               size_t group, Side side, uint64_t bytes, uint64_t most);

}  // namespace moelora::packed
