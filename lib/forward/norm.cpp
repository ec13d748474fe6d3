#include "lib/forward/norm.h"

#include <cmath>

namespace moelora {

template <class T>
Matrix<T> normalized(const NormSpec& norm, const Matrix<T>& x, const RowVector<T>& weight,
                     const RowVector<T>& bias) {
  Matrix<T> out = x;
  for (int64_t i = 0; i < out.rows(); ++i) {
    auto row = out.row(i).array();
    if (norm.kind == NormKind::layer) row -= row.mean();
    row /= std::sqrt(row.square().mean() + static_cast<T>(norm.eps));
    if (weight.size() != 0)
      row *= norm.kind == NormKind::rms_one_plus ? (weight.array() + T{1}).eval()
                                                 : weight.array().eval();
    if (bias.size() != 0) row += bias.array();
  }
  return out;
}

template Matrix<float> normalized(const NormSpec&, const Matrix<float>&, const RowVector<float>&,
                                  const RowVector<float>&);
template Matrix<double> normalized(const NormSpec&, const Matrix<double>&, const RowVector<double>&,
                                   const RowVector<double>&);

}  // namespace moelora
