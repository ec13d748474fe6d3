#pragma once

#include <cstdint>
#include <optional>
#include <set>

#include "lib/compare/bits/bit_pass.h"
#include "lib/compare/bits/factor_reader.h"

namespace moelora::packed {

// L1: whether pairs whose factors differ by their bits are the same product all the same: ranks in
// another order, zero ranks left out, a scale moved from one factor to the other ..
//
// "The same product" is a distance ||dW' - dW|| below kResolution of the norm, from Gram matrices
// of the factors (lib/base/low_rank.h). Factors that are the source's rank by rank but for some
// values (a last bit, a subnormal that became zero) are not other factors of one product: their
// bits decide, however little the product is off.

// Those of `pairs` that are the same product.
std::set<PairId> compare_products(const Pairings& pairings, const BitPass& bits,
                                  const std::set<PairId>& pairs, const PassOptions& options);

// L2, how far a pair's delta is off: ||dW' - dW|| / ||dW||; what is below kResolution may be 0.
// Infinite where only one of them is zero or a value is not finite, nullopt where shapes differ.
struct PairValues {
  MatrixPtr a, b;  // null: no pair, a delta of zero
  double scale = 1;
};
std::optional<double> delta_error(const PairValues& packed, const PairValues& source);

}  // namespace moelora::packed
