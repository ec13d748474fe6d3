#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/adapter/stacked_pairs.h"

namespace moelora {

// How large the rows of a stacked lora_A [E*r, in] and the columns of its lora_B [out, E*r] are.
struct StackedProfile {
  int64_t experts = 0, rank = 0;
  std::vector<double> row_squares, column_squares;  // sums of squares: of row e*r + k, of column c
  std::vector<char> column_is_zero;                 // every value is exactly 0
  std::vector<char> row_is_initial;  // every |value| <= 1/sqrt(in): kaiming_uniform_(a=sqrt(5))
  bool finite = true;                // no NaN, no Inf, nothing above 2^63

  int64_t count() const { return experts * rank; }
};

// Streams both tensors once, in blocks that stay in the second-level cache. REQUIRES: float types,
// E divides A's rows, and B has as many columns. Throws Error when bytes cannot be read.
StackedProfile profile_stacked_pair(const Tensor& a, const Tensor& b, int64_t experts);

// Statistics of n = E*r values that belong to an expert and a rank component each.

// Each value replaced by the normal quantile of its rank (ties share one), scaled to mean 0 and
// variance 1: outliers and the values' distribution no longer matter. All 0 when all are equal.
std::vector<double> normal_scores(std::span<const double> values);

// Which cell (e, k) each of n positions is: e*r + k.
struct Arrangement {
  int64_t experts = 0, rank = 0;
  bool expert_major = false;  // position e*r + k, else k*E + e

  int64_t expert(int64_t at) const { return expert_major ? at / rank : at % experts; }
  int64_t component(int64_t at) const { return expert_major ? at % rank : at / experts; }
  int64_t cell(int64_t at) const { return expert(at) * rank + component(at); }
};

// The parts of the scores' sum of squares that one effect an expert, and one effect a component,
// explain. For scores in random order chi-squared with E - 1 and r - 1 degrees of freedom.
struct TwoWayFit {
  double experts = 0, components = 0;
  double both() const { return experts + components; }
};

// What neither explains goes to `rest`, by cell.
TwoWayFit two_way_fit(std::span<const double> scores, const Arrangement& in,
                      std::vector<double>* rest = nullptr);

// How two arrangements' fits compare. For scores in random order their difference has mean 0, as
// both have the same degrees of freedom, and these standard deviations (0 where they cannot
// differ).
struct FitDeviations {
  double experts = 0, both = 0;
  // Where the scores have an effect of the experts: the difference of `both` over that of
  // `experts`, each in its standard deviations. 0 where r is a multiple of E: the other order's
  // components explain the experts.
  double share = 0;
};
FitDeviations fit_deviations(int64_t experts, int64_t rank);

// In which order the columns of a stacked lora_B are (BOrder: column k*E + e or e*r + k), guessed
// from values, where nothing declares it. Three kinds of evidence, none of which needs a base
// model:
//   grouping  Experts see different numbers of tokens, so the columns of one expert have similar
//             norms: the order whose experts explain more of the norms is the better one. An effect
//             of the rank component (an SVD initialisation, a padded rank) can pose as experts in
//             the other order: `strict` lets the components of each order explain what they can
//             first, and is blind where r is a multiple of E.
//   pairing   What is left of a column's norm goes with what is left of the norm of its row of
//             lora_A, whose order is known (e*r + k): the two grow together in training. Only in
//             the right order do they meet.
//   zeros     An expert that no token reached has r columns that are exactly 0, and rows of lora_A
//             that are still as they were initialised.
// "certain" was never wrong where the order was known (tests/bench/RESULTS.md); it still decides
// nothing by itself: an adapter can be made whose values say anything.
struct BOrderEvidence {
  enum class Confidence : uint8_t { unknown, likely, certain };

  std::optional<BOrder> verdict;  // nullopt exactly where confidence is unknown
  Confidence confidence = Confidence::unknown;

  int64_t pairs = 0;    // that can show it: E, r > 1, every value finite, lora_B not all 0
  int64_t against = 0;  // pairs whose own norms clearly say the opposite of all together

  // Standard deviations from "no order fits better"; above 0 speaks for rank-major.
  double grouping = 0, strict = 0, pairing = 0;
  double strict_share = 0;  // what `strict` is of `grouping` where experts are the reason for both
  double components = 0;    // of lora_A's rows: how much their norms depend on the rank component

  // Pairs whose zero columns are whole experts in this order and cannot be so in the other, and of
  // these the ones where lora_A's rows of just these experts are as initialised.
  int64_t zeros_rank_major = 0, zeros_expert_major = 0;
  int64_t zeros_with_initial_rows = 0;
  // log10 of the probability that so many zero columns, anywhere, make whole experts; 0 for zeros
  // that something else than experts could have left in one block.
  double zeros_chance = 0;
};

// Of one stacked pair.
BOrderEvidence b_order_evidence(const StackedProfile& profile);

// Of all pairs of an adapter, which are all in one order.
BOrderEvidence join_b_order_evidence(std::span<const BOrderEvidence> pairs);

// Reads all pairs of a file, one per thread, and joins them; what E does not divide is left out.
BOrderEvidence b_order_evidence(std::span<const StackedPair> pairs, int64_t experts, int threads);

// For a message: "the values speak for expert-major (certain): the columns of an expert have
// similar norms (21.3 standard deviations over 96 pairs), ..." or "the values do not say: ...".
std::string describe(const BOrderEvidence& evidence);

}  // namespace moelora
