#pragma once

#include <map>
#include <utility>

#include "lib/base/source.h"
#include "lib/base/tensor.h"

namespace moelora {

// Multiplication of all values by one number, in the tensor's own type.

// True when multiplying by `factor` only changes exponents.
bool is_power_of_two(double factor);

// Puts factors under tensors. Values are multiplied in double and rounded once to the tensor's type
// (to nearest, ties to even); infinities and NaNs stay. The sources' change() reads "scaled by 0.5
// (exact)", or "scaled by 1.5" where values are rounded: for a factor that is not a power of two,
// and for one that is as soon as a value was read that the result's range of exponents cannot hold
// exactly. Reading throws Error where a finite value would become an infinity. Tensors that share a
// source and a factor share the product, so that the writer still reads each source once.
class Scaler {
 public:
  // `tensor` itself where `factor` is 1 or the tensor holds nothing but zeros. Throws Error for a
  // type that is not a float type.
  Tensor scaled(const Tensor& tensor, double factor);

 private:
  std::map<std::pair<SourcePtr, double>, SourcePtr> done_;
};

}  // namespace moelora
