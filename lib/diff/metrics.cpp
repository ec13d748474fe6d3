#include "lib/diff/metrics.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iterator>
#include <map>
#include <numeric>
#include <string_view>

namespace moelora {
namespace {

constexpr double kClamp = 20, kClipHigh = 2, kClipLow = 0.5;

double clamped(double d) { return std::clamp(d, -kClamp, kClamp); }

// The nearest-rank percentile: the smallest value that at least `share` of all do not exceed.
double percentile(const std::vector<double>& sorted, double share) {
  const auto rank = static_cast<size_t>(std::ceil(share * static_cast<double>(sorted.size())));
  return sorted[std::max<size_t>(rank, 1) - 1];
}

void measure_differences(std::span<const ScorePair> pairs, Metrics& out) {
  std::vector<double> sizes;
  sizes.reserve(pairs.size());
  for (const ScorePair& pair : pairs) sizes.push_back(std::fabs(pair.d()));
  std::sort(sizes.begin(), sizes.end());
  out.mean_abs = mean(pairs, [](const ScorePair& p) { return std::fabs(p.d()); });
  out.median_abs = percentile(sizes, 0.5);
  out.p90_abs = percentile(sizes, 0.9);
  out.p95_abs = percentile(sizes, 0.95);
  out.p99_abs = percentile(sizes, 0.99);
  out.max_abs = sizes.back();
}

void measure_divergences(std::span<const ScorePair> pairs, Metrics& out) {
  out.k1 = mean(pairs, [](const ScorePair& p) { return -p.d(); });
  out.k2 = mean(pairs, [](const ScorePair& p) { return p.d() * p.d() / 2; });
  out.k3 = mean(pairs, [](const ScorePair& p) {
    const double d = clamped(p.d());
    return std::expm1(d) - d;
  });
}

void measure_probabilities(std::span<const ScorePair> pairs, Metrics& out) {
  const auto apart = [](const ScorePair& p) { return std::fabs(std::exp(p.b) - std::exp(p.a)); };
  out.prob_mean_abs = mean(pairs, apart);
  for (const ScorePair& pair : pairs) out.prob_max_abs = std::max(out.prob_max_abs, apart(pair));
  const double a = mean(pairs, [](const ScorePair&p) { return p.a; }),
               b = mean(pairs, [](const ScorePair&p) { return p.b; });
  out.ppl_a = std::exp(-a);
  out.ppl_b = std::exp(-b);
  out.log_ppl_diff = a - b;
  double aa = 0, bb = 0, ab = 0;
  for (const ScorePair& p : pairs) {
    aa += (p.a - a) * (p.a - a);
    bb += (p.b - b) * (p.b - b);
    ab += (p.a - a) * (p.b - b);
  }
  if (aa > 0 && bb > 0) out.pearson = ab / std::sqrt(aa * bb);
}

double chi2_of_sequences(std::span<const ScorePair> pairs) {
  std::map<size_t, std::pair<double, int64_t>> sums;  // of d, and how many
  for (const ScorePair& pair : pairs) {
    auto& [sum, count] = sums[pair.sequence];
    sum += pair.d();
    ++count;
  }
  double total = 0;
  for (const auto& entry : sums)
    total += std::exp(2 * clamped(entry.second.first / static_cast<double>(entry.second.second)));
  return total / static_cast<double>(sums.size()) - 1;
}

void measure_ratios(std::span<const ScorePair> pairs, Metrics& out) {
  const auto ratio = [](const ScorePair& p) { return std::exp(clamped(p.d())); };
  out.ratio_mean = mean(pairs, ratio);
  out.ratio_min = out.ratio_max = ratio(pairs.front());
  for (const ScorePair& pair : pairs) {
    out.ratio_min = std::min(out.ratio_min, ratio(pair));
    out.ratio_max = std::max(out.ratio_max, ratio(pair));
  }
  const double squares = mean(pairs, [&](const ScorePair& p) { return ratio(p) * ratio(p); });
  out.ess = out.ratio_mean * out.ratio_mean / squares;
  out.chi2_token = squares - 1;
  out.chi2_sequence = chi2_of_sequences(pairs);
  out.clip_high = mean(pairs, [&](const ScorePair& p) { return ratio(p) > kClipHigh ? 1.0 : 0.0; });
  out.clip_low = mean(pairs, [&](const ScorePair& p) { return ratio(p) < kClipLow ? 1.0 : 0.0; });
}

using Member = double Metrics::*;
constexpr std::array<std::pair<std::string_view, Member>, 22> kMembers = {
    {{"mean_abs", &Metrics::mean_abs},
     {"median_abs", &Metrics::median_abs},
     {"p90_abs", &Metrics::p90_abs},
     {"p95_abs", &Metrics::p95_abs},
     {"p99_abs", &Metrics::p99_abs},
     {"max_abs", &Metrics::max_abs},
     {"k1", &Metrics::k1},
     {"k2", &Metrics::k2},
     {"k3", &Metrics::k3},
     {"prob_mean_abs", &Metrics::prob_mean_abs},
     {"prob_max_abs", &Metrics::prob_max_abs},
     {"ppl_a", &Metrics::ppl_a},
     {"ppl_b", &Metrics::ppl_b},
     {"log_ppl_diff", &Metrics::log_ppl_diff},
     {"ratio_mean", &Metrics::ratio_mean},
     {"ratio_min", &Metrics::ratio_min},
     {"ratio_max", &Metrics::ratio_max},
     {"ess", &Metrics::ess},
     {"chi2_token", &Metrics::chi2_token},
     {"chi2_sequence", &Metrics::chi2_sequence},
     {"clip_high", &Metrics::clip_high},
     {"clip_low", &Metrics::clip_low}}};

constexpr std::string_view kPearson = "pearson";  // an optional one, behind prob_max_abs

std::map<int64_t, double> by_token(const std::vector<TopToken>& top) {
  std::map<int64_t, double> out;
  for (const TopToken& entry : top) out.emplace(entry.token, entry.logprob);
  return out;
}

// KL of two distributions over the same tokens, each renormalized to them.
double renormalized_kl(const std::vector<std::pair<double, double>>& both) {
  double sum_p = 0, sum_q = 0, kl = 0;
  for (const auto& [p, q] : both) {
    sum_p += std::exp(p);
    sum_q += std::exp(q);
  }
  if (!(sum_p > 0) || !(sum_q > 0)) return 0;
  for (const auto& [p, q] : both)
    kl += std::exp(p) / sum_p * ((p - std::log(sum_p)) - (q - std::log(sum_q)));
  return kl;
}

void add_top(const std::vector<TopToken>& a, const std::vector<TopToken>& b, TopMetrics& sums) {
  const std::map<int64_t, double> in_b = by_token(b);
  std::vector<std::pair<double, double>> ab, ba;
  for (const TopToken& entry : a)
    if (const auto other = in_b.find(entry.token);
        other != in_b.end() && std::isfinite(entry.logprob) && std::isfinite(other->second)) {
      ab.emplace_back(entry.logprob, other->second);
      ba.emplace_back(other->second, entry.logprob);
    }
  ++sums.n;
  sums.agreement += a.front().token == b.front().token ? 1 : 0;
  sums.overlap += static_cast<double>(ab.size()) / static_cast<double>(a.size());
  sums.kl_ab += renormalized_kl(ab);
  sums.kl_ba += renormalized_kl(ba);
}

}  // namespace

std::vector<std::pair<std::string, double>> Metrics::named() const {
  std::vector<std::pair<std::string, double>> out;
  for (const auto& [name, member] : kMembers) {
    out.emplace_back(name, this->*member);
    if (name == "prob_max_abs" && pearson) out.emplace_back(kPearson, *pearson);
  }
  return out;
}

std::vector<std::string_view> Metrics::names() {
  std::vector<std::string_view> out;
  for (const auto& member : kMembers) out.push_back(member.first);
  out.push_back(kPearson);
  return out;
}

Metrics measure(std::span<const ScorePair> pairs) {
  Metrics out;
  out.n = static_cast<int64_t>(pairs.size());
  measure_differences(pairs, out);
  measure_divergences(pairs, out);
  measure_probabilities(pairs, out);
  measure_ratios(pairs, out);
  return out;
}

std::optional<TopMetrics> measure_top(const Scores& a, const Scores& b,
                                      const Alignment& alignment) {
  TopMetrics out;
  for (const ScorePair& pair : alignment.pairs) {
    const auto &x = a.sequences[pair.sequence].top, &y = b.sequences[pair.sequence].top;
    if (pair.position >= x.size() || pair.position >= y.size()) continue;
    if (!x[pair.position].empty() && !y[pair.position].empty())
      add_top(x[pair.position], y[pair.position], out);
  }
  if (out.n == 0) return std::nullopt;
  for (double* sum : {&out.agreement, &out.overlap, &out.kl_ab, &out.kl_ba})
    *sum /= static_cast<double>(out.n);
  return out;
}

std::vector<ScorePair> worst_pairs(std::span<const ScorePair> pairs, size_t k) {
  std::vector<uint32_t> order(pairs.size());
  std::iota(order.begin(), order.end(), 0U);
  const auto is_worse = [&](uint32_t x, uint32_t y) {
    const double dx = std::fabs(pairs[x].d()), dy = std::fabs(pairs[y].d());
    return dx != dy ? dx > dy : x < y;
  };
  const auto last = order.begin() + static_cast<std::ptrdiff_t>(std::min(k, order.size()));
  std::partial_sort(order.begin(), last, order.end(), is_worse);
  std::vector<ScorePair> out;
  std::transform(order.begin(), last, std::back_inserter(out),
                 [&](uint32_t index) { return pairs[index]; });
  return out;
}

}  // namespace moelora
