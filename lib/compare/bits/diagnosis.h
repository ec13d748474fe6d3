#pragma once

#include <set>
#include <vector>

#include "lib/compare/bits/fault.h"
#include "lib/compare/bits/products.h"

namespace moelora::packed {

// What is wrong with `different`, the pairs that neither bits nor products explain: every pair
// belongs to one fault. Experts of one layer that differ alike are looked at by sample. `rounding`:
// the error of a delta that rounding alone may cause.
std::vector<Fault> diagnose(const Pairings& pairings, const BitPass& bits,
                            const std::set<PairId>& different, double rounding);

}  // namespace moelora::packed
