#include "lib/numeric/singular_values.h"

#include <Eigen/Eigenvalues>
#include <algorithm>
#include <cmath>

namespace moelora {

// The squares are the eigenvalues of A A^T B^T B, which are those of S B^T B S with S^2 = A A^T.
std::vector<double> singular_values(std::span<const double> a, std::span<const double> b,
                                    int64_t n) {
  const auto is_finite = [](double value) { return std::isfinite(value); };
  if (!std::all_of(a.begin(), a.end(), is_finite) || !std::all_of(b.begin(), b.end(), is_finite))
    return {};
  using Matrix = Eigen::MatrixXd;
  const Eigen::Map<const Matrix> first(a.data(), n, n), second(b.data(), n, n);
  const Eigen::SelfAdjointEigenSolver<Matrix> of_a(first);
  const Eigen::VectorXd roots = of_a.eigenvalues().cwiseMax(0).cwiseSqrt();
  const Matrix root = of_a.eigenvectors() * roots.asDiagonal() * of_a.eigenvectors().transpose();
  const Matrix product = root * second * root;
  const Eigen::SelfAdjointEigenSolver<Matrix> squares(product, Eigen::EigenvaluesOnly);
  std::vector<double> out;
  for (int64_t i = n; i-- > 0;) out.push_back(std::sqrt(std::max(0.0, squares.eigenvalues()[i])));
  return out;
}

}  // namespace moelora
