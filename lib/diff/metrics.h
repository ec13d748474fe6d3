#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/diff/alignment.h"

namespace moelora {

// With d = logp_B - logp_A (B against A, say server against trainer) over the n compared positions:
//   mean_abs, median_abs, p90_abs, p95_abs, p99_abs, max_abs   of |d|; percentiles are nearest-rank
//   k1 = mean(-d), k2 = mean(d^2 / 2), k3 = mean(e^d - d - 1)  estimators of KL(A || B)
//   prob_mean_abs, prob_max_abs    of |e^logp_B - e^logp_A|
//   pearson                        of logp_A and logp_B; absent where one is constant
//   ppl_a, ppl_b = exp(-mean logp), log_ppl_diff = mean logp_A - mean logp_B
//   ratio_mean, ratio_min, ratio_max   of the importance ratio rho = e^d, d clamped to +-20
//   ess = (sum rho)^2 / (n sum rho^2)  effective sample size as a share of n
//   chi2_token = mean(rho^2) - 1; chi2_sequence = mean over sequences of rho_s^2, minus 1, with
//   rho_s the geometric mean of rho in the sequence
//   clip_high, clip_low            shares of rho above 2 and below 0.5
// Exponentials of k3 use d clamped to +-20, as verl and miles do.
struct Metrics {
  int64_t n = 0;
  double mean_abs = 0, median_abs = 0, p90_abs = 0, p95_abs = 0, p99_abs = 0, max_abs = 0;
  double k1 = 0, k2 = 0, k3 = 0;
  double prob_mean_abs = 0, prob_max_abs = 0;
  std::optional<double> pearson;
  double ppl_a = 0, ppl_b = 0, log_ppl_diff = 0;
  double ratio_mean = 0, ratio_min = 0, ratio_max = 0, ess = 0;
  double chi2_token = 0, chi2_sequence = 0, clip_high = 0, clip_low = 0;

  // By the names above, in that order; absent ones are left out.
  std::vector<std::pair<std::string, double>> named() const;
  static std::vector<std::string_view> names();  // all of them
};

// REQUIRES: at least one pair.
Metrics measure(std::span<const ScorePair> pairs);

// Of the top log-probabilities, over positions where both sides have them: `agreement` is the share
// of equal best tokens, `overlap` the mean share of A's tokens that B has too, kl_ab and kl_ba the
// mean KL divergences of the two renormalized to the tokens that both have.
struct TopMetrics {
  int64_t n = 0;
  double agreement = 0, overlap = 0, kl_ab = 0, kl_ba = 0;
};
std::optional<TopMetrics> measure_top(const Scores& a, const Scores& b, const Alignment& alignment);

// The k pairs with the largest |d|, largest first; ties in order of position.
std::vector<ScorePair> worst_pairs(std::span<const ScorePair> pairs, size_t k);

}  // namespace moelora
