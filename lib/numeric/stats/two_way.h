#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace moelora {

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

}  // namespace moelora
