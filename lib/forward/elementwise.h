#pragma once

#include <algorithm>
#include <cmath>

#include "lib/forward/matrix.h"

namespace moelora {

template <class T>
Matrix<T> silu_of(const Matrix<T>& x) {
  return x.array() / (T{1} + (-x.array()).exp());
}

// log(1 + e^x), without overflow.
template <class T>
T softplus(T x) {
  return std::max(x, T{0}) + std::log1p(std::exp(-std::abs(x)));
}

}  // namespace moelora
