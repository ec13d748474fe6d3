#include "lib/numeric/stats/two_way.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <functional>
#include <numeric>

namespace moelora {
namespace {

// The normal quantile (Acklam's rational form would do as well): Newton steps on erfc from a guess.
double normal_quantile(double p) {
  const double q = std::min(p, 1 - p);
  const double t = std::sqrt(-2 * std::log(q));
  double x = t - (2.30753 + 0.27061 * t) / (1 + t * (0.99229 + 0.04481 * t));
  for (int i = 0; i < 2; ++i) {
    const double error = 0.5 * std::erfc(x / std::sqrt(2.0)) - q;
    x += error * std::sqrt(2 * M_PI) * std::exp(x * x / 2);
  }
  return p < 0.5 ? -x : x;
}

using Label = std::function<int64_t(int64_t)>;

// tr(P Q) of the projections onto the effects of two labels of n positions, the mean taken out.
double overlap(int64_t n, const Label& a, int64_t groups_a, const Label& b, int64_t groups_b) {
  std::vector<int32_t> counts(static_cast<size_t>(groups_a * groups_b), 0);
  for (int64_t i = 0; i < n; ++i) ++counts[static_cast<size_t>(a(i) * groups_b + b(i))];
  double squares = 0;
  for (const int32_t count : counts) squares += static_cast<double>(count) * count;
  const double size_a = static_cast<double>(n / groups_a),
               size_b = static_cast<double>(n / groups_b);
  return squares / (size_a * size_b) - 1;
}

// Turns sums over groups of `size` values into their means; what these explain.
double sum_of_squares(std::vector<double>& sums, int64_t size) {
  double out = 0;
  for (double& sum : sums) {
    sum /= static_cast<double>(size);
    out += sum * sum * static_cast<double>(size);
  }
  return out;
}

}  // namespace

std::vector<double> normal_scores(std::span<const double> values) {
  const size_t n = values.size();
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return values[a] < values[b]; });
  std::vector<double> out(n);
  double sum = 0, squares = 0;
  for (size_t i = 0; i < n;) {
    size_t end = i + 1;
    while (end < n && values[order[end]] == values[order[i]]) ++end;
    const double middle = (static_cast<double>(i + end)) / 2;
    const double score = normal_quantile(middle / static_cast<double>(n));
    for (size_t at = i; at < end; ++at) out[order[at]] = score;
    sum += score * static_cast<double>(end - i);
    squares += score * score * static_cast<double>(end - i);
    i = end;
  }
  const double mean = sum / static_cast<double>(n);
  const double deviation = std::sqrt(std::max(0.0, squares / static_cast<double>(n) - mean * mean));
  for (double& score : out) score = deviation > 1e-9 ? (score - mean) / deviation : 0;
  return out;
}

TwoWayFit two_way_fit(std::span<const double> scores, const Arrangement& in,
                      std::vector<double>* rest) {
  std::vector<double> experts(static_cast<size_t>(in.experts), 0);
  std::vector<double> components(static_cast<size_t>(in.rank), 0);
  const auto n = static_cast<int64_t>(scores.size());
  for (int64_t at = 0; at < n; ++at) {
    experts[static_cast<size_t>(in.expert(at))] += scores[static_cast<size_t>(at)];
    components[static_cast<size_t>(in.component(at))] += scores[static_cast<size_t>(at)];
  }
  const TwoWayFit fit{sum_of_squares(experts, in.rank), sum_of_squares(components, in.experts)};
  if (rest == nullptr) return fit;
  rest->assign(scores.size(), 0);
  for (int64_t at = 0; at < n; ++at)
    (*rest)[static_cast<size_t>(in.cell(at))] = scores[static_cast<size_t>(at)] -
                                                experts[static_cast<size_t>(in.expert(at))] -
                                                components[static_cast<size_t>(in.component(at))];
  return fit;
}

FitDeviations fit_deviations(int64_t experts, int64_t rank) {
  const int64_t n = experts * rank;
  const Arrangement a{experts, rank, false}, b{experts, rank, true};
  const Label expert_a = [&](int64_t i) { return a.expert(i); };
  const Label expert_b = [&](int64_t i) { return b.expert(i); };
  const Label component_a = [&](int64_t i) { return a.component(i); };
  const Label component_b = [&](int64_t i) { return b.component(i); };
  const double experts_experts = overlap(n, expert_a, experts, expert_b, experts);
  const double crossed = overlap(n, expert_a, experts, component_b, rank) +
                         overlap(n, component_a, rank, expert_b, experts);
  const double all = experts_experts + crossed + overlap(n, component_a, rank, component_b, rank);
  const auto deviation = [](int64_t freedom, double common) {
    const double differing = static_cast<double>(freedom) - common;
    return differing > 1e-6 ? std::sqrt(4 * differing) : 0;
  };
  FitDeviations out{deviation(experts - 1, experts_experts), deviation(experts + rank - 2, all)};
  // What of the experts' effect the other order does not explain, without and with its components.
  const double left_of_one = static_cast<double>(experts - 1) - experts_experts;
  const double left_of_both = left_of_one - crossed / 2;
  if (out.both > 0 && left_of_both > 1e-6)
    out.share = left_of_both / out.both / (left_of_one / out.experts);
  return out;
}

}  // namespace moelora
