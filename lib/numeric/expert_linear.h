#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lib/numeric/moe_layer.h"

namespace moelora {

// A stage's result and, where it was asked for, the same sums over absolute values, |W| |in| + |b|,
// which bound what rounding can do to it. `magnitude` is empty otherwise.
template <class T>
struct Evaluated {
  std::vector<T> value, magnitude;
};

// scale * matrix in + bias, of one expert; nothing where there is no matrix.
struct LinearTerm {
  const Tensor* matrix = nullptr;  // [out, in]
  const Tensor* bias = nullptr;    // [out]
  double scale = 1;
};

// The linear stages of one projection, each from a given input, for all pairs at once. Rows of the
// results are pairs; a pair that is in no group has a row of zeros. Work is spread over experts; a
// thread holds one expert's matrix as stored, and blocks of its rows as T. T is float or double.
// Results do not depend on `threads` (0: all cores).
template <class T>
class ExpertLinear {
 public:
  // Refers to its arguments.
  ExpertLinear(const MoeWeights& weights, const std::vector<ExpertGroup>& groups, Projection p,
               int64_t pairs, int threads);

  int64_t rank() const { return rank_; }  // the largest of any expert, 0 without LoRA

  Evaluated<T> base(std::span<const T> in, bool magnitude = false) const;     // W in + b
  Evaluated<T> rank(std::span<const T> in, bool magnitude = false) const;     // A in
  Evaluated<T> delta(std::span<const T> rank, bool magnitude = false) const;  // s B rank

 private:
  using TermOf = std::function<LinearTerm(int64_t expert)>;
  Evaluated<T> apply(std::span<const T> in, int64_t out_stride, const TermOf& term_of,
                     bool magnitude) const;
  const ExpertPair* lora() const;

  const MoeWeights& weights_;
  const std::vector<ExpertGroup>& groups_;
  Projection projection_;
  int64_t pairs_, rank_ = 0;
  int threads_;
};

extern template class ExpertLinear<float>;
extern template class ExpertLinear<double>;

}  // namespace moelora
