#pragma once

#include <set>
#include <utility>
#include <vector>

#include "lib/compare/bits/bit_pass.h"

namespace moelora::packed {

// L1: whether pairs whose factors differ are the same product all the same (ranks in another order,
// zero ranks left out, a scale moved from one factor to the other ..): scale·u^T B (A x) of both in
// the field, for two pairs of probe vectors. Equal products are always found equal; different ones
// are taken for equal with a chance of at most 2^-20.

struct PairId {
  size_t pairing;
  int64_t expert;
  friend auto operator<=>(const PairId&, const PairId&) = default;
};

struct ProductPass {
  std::set<PairId> equal;
  uint64_t bytes = 0;                       // read
  int64_t by_doubles = 0, in_integers = 0;  // factors whose sums were exact in double, or not
};

// Looks at `pairs` only.
ProductPass compare_products(const Table& packed, const Table& source, const Pairings& pairings,
                             const std::set<PairId>& pairs, const PassOptions& options);

}  // namespace moelora::packed
