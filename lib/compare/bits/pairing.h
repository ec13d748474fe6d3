#pragma once

#include <vector>

#include "lib/compare/bits/loader.h"
#include "lib/compare/bits/table.h"

namespace moelora::packed {

// Which ranks of a packed factor hold the source's. Others must be zero, but for the ranks of the
// other half where gate and up were fused with an A of their own each: A stacked, B block-diagonal.
enum class Placement : uint8_t {
  first,       // ranks 0 .. r
  after_gate,  // of up: after those of gate
  second_half  // of up: from the middle, where a server's slots of equal size put it
};

// What the packed adapter and its source say of one unit.
struct Pairing {
  UnitKey key;
  const Unit* packed = nullptr;  // null: it has none
  const Unit* source = nullptr;
  Placement placement = Placement::first;
  bool shares_packed_a = false;  // gate and up of the packed adapter are one fused factor
  // The other half in the source, where they are; null: it has none.
  const Unit* source_sibling = nullptr;
  Placement sibling_placement = Placement::first;

  const Factor* packed_side(Side side) const { return packed ? &packed->side(side) : nullptr; }
  const Factor* source_side(Side side) const { return source ? &source->side(side) : nullptr; }

  // The ranks of a packed factor of `packed_rank` that hold the source's, and the sibling's.
  struct Ranks {
    int64_t begin = 0, end = 0;
  };
  Ranks own_ranks(int64_t expert, int64_t packed_rank) const;
  Ranks sibling_ranks(int64_t expert, int64_t packed_rank) const;
};

struct Pairings {
  std::vector<Pairing> all;
  // Pairings that are read together: gate and up of a layer, which may lie in one tensor.
  std::vector<std::vector<size_t>> groups;
};

// Pairs everything in either table. Throws Error where one keeps gate and up rows fused in an order
// that is not known and the other does not.
Pairings pair_up(const Table& packed, const Table& source);

}  // namespace moelora::packed
