#pragma once

#include <cstdint>

#include "lib/forward/matrix.h"

namespace moelora {

enum class NormKind : uint8_t {
  rms,           // x / sqrt(mean(x^2) + eps) * w
  rms_one_plus,  // ... * (1 + w): Gemma 1 to 3, Qwen3-Next
  layer,         // (x - mean) / sqrt(variance + eps) * w + b
};

struct NormSpec {
  NormKind kind = NormKind::rms;
  double eps = 1e-6;
};

// Each row of x apart. An empty weight or bias is that of a norm without one.
template <class T>
Matrix<T> normalized(const NormSpec& norm, const Matrix<T>& x, const RowVector<T>& weight = {},
                     const RowVector<T>& bias = {});

extern template Matrix<float> normalized(const NormSpec&, const Matrix<float>&,
                                         const RowVector<float>&, const RowVector<float>&);
extern template Matrix<double> normalized(const NormSpec&, const Matrix<double>&,
                                          const RowVector<double>&, const RowVector<double>&);

}  // namespace moelora
