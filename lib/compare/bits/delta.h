#pragma once

#include <optional>

#include "lib/compare/bits/lens.h"

namespace moelora::packed {

// How far a pair's delta is off: ||dW' - dW|| / ||dW||, Frobenius, dW = scale B A, from inner
// products of the factors' ranks in double, without either matrix; what is below 1e-7 may be 0.
// Infinite where only one of them is zero or a value is not finite, nullopt where shapes differ.
struct PairValues {
  MatrixPtr a, b;  // null: no pair, a delta of zero
  double scale = 1;
};
std::optional<double> delta_error(const PairValues& packed, const PairValues& source);

}  // namespace moelora::packed
