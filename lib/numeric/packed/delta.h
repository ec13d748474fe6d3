#pragma once

#include <optional>

#include "lib/numeric/packed/lens.h"

namespace moelora::packed {

// How far a pair's delta is off: ||(dW' - dW) X|| / ||dW X|| for a block X of vectors of +-1, in
// double, dW = scale B A. An estimate of the Frobenius ratio that needs neither matrix. Infinite
// where only one of them is zero or a value is not finite, nullopt where shapes differ.
struct PairValues {
  MatrixPtr a, b;  // null: no pair, a delta of zero
  double scale = 1;
};
std::optional<double> delta_error(const PairValues& packed, const PairValues& source);

}  // namespace moelora::packed
