#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/compare/gram.h"

namespace moelora {

// Factors in memory, and cuts of them, for sums over the deltas they stand for.

struct HeldMatrix {
  DType dtype = DType::F32;
  const std::byte* data = nullptr;  // row-major
  int64_t rows = 0, columns = 0;

  // REQUIRES a matrix.
  static HeldMatrix of(const Tensor& tensor, const std::byte* data) {
    return {tensor.dtype(), data, tensor.dim(0), tensor.dim(1)};
  }
};

// Rows first, first + step, .. and columns [column, column + columns) of a matrix, zeros beyond it;
// copied where they are not the whole.
class Window {
 public:
  explicit Window(const HeldMatrix& whole) : held_(whole) {}
  Window(const HeldMatrix& whole, int64_t first, int64_t step, int64_t rows, int64_t column,
         int64_t columns);
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;

  const HeldMatrix& matrix() const { return held_; }
  // As a lora_A [r, in] or a lora_B [out, r].
  FactorValues a() const { return {held_.dtype, held_.data, held_.rows, held_.columns, false}; }
  FactorValues b() const { return {held_.dtype, held_.data, held_.columns, held_.rows, true}; }

 private:
  HeldMatrix held_;
  std::vector<std::byte> copy_;
};

// Whether held_scale * held is scale * meant, element by element, within `tolerance` of each value:
// 0 for the same bits but for exponents. Rows of `held` beyond `meant` (of a lora_A) and columns
// beyond it (of a lora_B) must be zero.
bool is_same(const HeldMatrix& meant, double scale, const HeldMatrix& held, double held_scale,
             double tolerance);

// Inner products of the rank-one parts of deltas, <b_i a_i, b_j a_j>, numbered over all pairs of
// factors in turn.
class RankOneParts {
 public:
  RankOneParts(const std::vector<FactorValues>& a, const std::vector<FactorValues>& b);

  int64_t size() const { return n_; }
  double sum(int64_t i0, int64_t i1, int64_t j0, int64_t j1) const;
  double all() const { return sum(0, n_, 0, n_); }
  double diagonal() const;

 private:
  double at(int64_t i, int64_t j) const {
    const auto index = static_cast<size_t>(i * n_ + j);
    return p_[index] * q_[index];
  }

  std::vector<double> p_, q_;
  int64_t n_ = 0;
};

}  // namespace moelora
