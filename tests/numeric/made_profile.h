#pragma once

#include <cmath>
#include <random>

#include "lib/numeric/stats/b_order_evidence.h"

namespace moelora::test {

// A stacked pair with known order, as norms: what training is thought to leave. All are standard
// deviations of logarithms of norms.
struct MadeProfile {
  int64_t experts = 32, rank = 8;
  BOrder order = BOrder::rank_major;
  double column = 0.3;     // of each column alone
  double expert = 0;       // that the columns of an expert share
  double component = 0;    // that falls from the first rank component to the last, as an SVD's does
  double block = 0;        // that 16 neighbouring experts share
  double together = 0;     // the part of a column's variance that its row of lora_A has too
  bool rows_fall = false;  // lora_A's rows have the effect of the components as well
  double tails = 0;        // above 0: that part of the columns is ten times as large
  int64_t dead = 0;        // experts that no token reached
  int64_t padding = 0;     // components that are 0 in both factors

  StackedProfile make(uint64_t seed) const {
    std::mt19937_64 random(seed);
    StackedProfile out;
    out.experts = experts;
    out.rank = rank;
    const auto n = static_cast<size_t>(experts * rank);
    out.row_squares.resize(n);
    out.column_squares.resize(n);
    out.column_is_zero.assign(n, 0);
    out.row_is_initial.assign(n, 0);
    double of_block = 0;
    for (int64_t e = 0; e < experts; ++e) {
      if (e % 16 == 0) of_block = block * normal_(random);
      add_expert(e, of_block + expert * normal_(random), random, out);
    }
    return out;
  }

 private:
  void add_expert(int64_t e, double of_expert, std::mt19937_64& random, StackedProfile& out) const {
    const int64_t step = dead > 0 ? experts / dead : 0;
    const bool is_dead = dead > 0 && e % step == (e / step * 5 + 3) % step;
    for (int64_t k = 0; k < rank; ++k) {
      const auto row = static_cast<size_t>(e * rank + k);
      const auto at =
          static_cast<size_t>(order == BOrder::rank_major ? k * experts + e : e * rank + k);
      const double common = std::sqrt(together) * normal_(random);
      const double alone = std::sqrt(1 - together);
      const double falls = -component * static_cast<double>(k) / static_cast<double>(rank) * 3.5;
      double b = of_expert + falls + column * (common + alone * normal_(random));
      double a = (rows_fall ? falls : 0) + 0.1 * (common + alone * normal_(random));
      if (tails > 0 && uniform_(random) < tails) b += std::log(10);
      const bool zero = is_dead || k >= rank - padding;
      out.column_squares[at] = zero ? 0 : std::exp(2 * b);
      out.column_is_zero[at] = zero;
      out.row_squares[row] = k >= rank - padding ? 0 : std::exp(2 * a);
      out.row_is_initial[row] = zero;
    }
  }

  mutable std::normal_distribution<double> normal_;
  mutable std::uniform_real_distribution<double> uniform_;
};

// How often the detector was right, over seeds and both orders.
struct HitRate {
  int right = 0, wrong = 0, unknown = 0, certain = 0, certain_wrong = 0;
  int all() const { return right + wrong + unknown; }
  double percent(int count) const { return 100.0 * count / all(); }
};

// Of adapters with `pairs` pairs each.
inline HitRate hit_rate(MadeProfile made, int adapters, int pairs = 1) {
  HitRate out;
  uint64_t seed = 1;
  for (int i = 0; i < adapters; ++i) {
    made.order = i % 2 == 0 ? BOrder::rank_major : BOrder::expert_major;
    std::vector<BOrderEvidence> evidence;
    for (int p = 0; p < pairs; ++p) evidence.push_back(b_order_evidence(made.make(seed++)));
    const BOrderEvidence joined = join_b_order_evidence(evidence);
    const bool certain = joined.confidence == BOrderEvidence::Confidence::certain;
    const bool right = joined.verdict == made.order;
    ++(!joined.verdict ? out.unknown : right ? out.right : out.wrong);
    out.certain += certain ? 1 : 0;
    out.certain_wrong += certain && !right ? 1 : 0;
  }
  return out;
}

}  // namespace moelora::test
