#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "lib/base/dtype.h"

namespace moelora {

// Low-rank products X = s B A, A [r, in] and B [out, r], measured without forming them: with the
// Gram matrices P = [A1; A2][A1; A2]^T and Q = [B1, B2]^T [B1, B2], <X1, X2> = s1 s2 sum(Q12 * P12)
// in the Frobenius inner product. All sums are in double.

// A factor's values in memory as `rows` vectors of `columns` values: lora_A [r, in] by its rows, or
// lora_B [out, r] by its columns (across = true: the r values of one `out` lie together).
struct FactorValues {
  DType dtype;  // F64, F32, F16 or BF16
  const std::byte* data;
  int64_t rows, columns;
  bool across;
};

// The inner products of the rows of factors laid one below another. Columns may come in parts.
class Gram {
 public:
  explicit Gram(int64_t rows);

  // Adds what these columns contribute. REQUIRES: as many rows in all, the same `columns` in each.
  void add(std::span<const FactorValues> factors);

  int64_t rows() const { return rows_; }
  double at(int64_t i, int64_t j) const;

 private:
  struct alignas(64) Vector {
    double values[8] = {};
  };
  int64_t rows_, width_;      // in whole vectors
  std::vector<Vector> sums_;  // the upper triangle
};
Gram gram_of(std::span<const FactorValues> factors);

// The inner products of rank-one parts, <b_i a_i, b_j a_j>, of products numbered one after another.
class RankOneParts {
 public:
  RankOneParts(Gram a, Gram b) : a_(std::move(a)), b_(std::move(b)) {}
  RankOneParts(std::span<const FactorValues> a, std::span<const FactorValues> b)
      : a_(gram_of(a)), b_(gram_of(b)) {}

  int64_t size() const { return a_.rows(); }
  double sum(int64_t i0, int64_t i1, int64_t j0, int64_t j1) const;
  double all() const { return sum(0, size(), 0, size()); }
  double squares(int64_t first, int64_t end) const;  // sum of |b_i|^2 |a_i|^2
  // Of the product of parts [first, end): the sum of the fourth powers of its singular values.
  double fourth_powers(int64_t first, int64_t end) const;

 private:
  double at(int64_t i, int64_t j) const { return a_.at(i, j) * b_.at(i, j); }
  Gram a_, b_;
};

// How far two products are apart: from parts of which the first `first` are X's, the rest Y's.
struct ProductDistance {
  double x = 0, y = 0;  // |X|, |Y|
  double inner = 0;     // <X, Y>
  // |X - Y|; 0 where it is below kResolution of the larger norm, as that is rounding of the sums.
  // Not finite where a factor's values are not.
  double apart = 0;

  double relative() const;  // apart / |X|; infinite where only X is 0
};
inline constexpr double kResolution = 1e-7;
ProductDistance distance_of(const RankOneParts& parts, int64_t first, double x_scale,
                            double y_scale);

}  // namespace moelora
