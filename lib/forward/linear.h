#pragma once

#include "lib/forward/matrix.h"
#include "lib/forward/model_weights.h"

namespace moelora {

// x W^T + b with LoRA, x [n, in], by blocks of W's rows, which are read when they are asked for: so
// one matrix of any size needs little memory, and an lm_head's outputs are never all there. Refers
// to both arguments. Throws Error where x or a factor does not fit.
template <class T>
class LinearBlocks {
 public:
  LinearBlocks(const LinearWeights& weights, const Matrix<T>& x);

  int64_t count() const { return (rows_ + step_ - 1) / step_; }
  int64_t first(int64_t block) const { return block * step_; }  // output
  Matrix<T> compute(int64_t block) const;                       // [n, outputs of the block]

 private:
  RowVector<T> dora_factors(const Matrix<T>& w, int64_t first) const;

  const LinearWeights& weights_;
  const Matrix<T>& x_;
  int64_t rows_, step_;
  Matrix<T> lora_a_, in_rank_;  // A, and scale * x A^T [n, r]
};

// All of them, on `threads` (0: all); the result does not depend on how many.
template <class T>
Matrix<T> apply_linear(const LinearWeights& weights, const Matrix<T>& x, int threads);

// All values of a small tensor, as a matrix of its last dim's columns.
template <class T>
Matrix<T> read_matrix(const Tensor& tensor);

extern template class LinearBlocks<float>;
extern template class LinearBlocks<double>;
extern template Matrix<float> apply_linear(const LinearWeights&, const Matrix<float>&, int);
extern template Matrix<double> apply_linear(const LinearWeights&, const Matrix<double>&, int);
extern template Matrix<float> read_matrix(const Tensor&);
extern template Matrix<double> read_matrix(const Tensor&);

}  // namespace moelora
