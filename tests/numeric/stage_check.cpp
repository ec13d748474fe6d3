#include "tests/numeric/stage_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lib/base/cast.h"
#include "lib/numeric/expert_linear.h"
#include "lib/numeric/moe_forward.h"

namespace moelora::test {
namespace {

using Values = std::vector<double>;

constexpr double kFloat = 0x1p-23, kBf16 = 0x1p-8;

Values in_double(std::span<const float> values) { return Values(values.begin(), values.end()); }

Values scaled(Values values, double factor) {
  for (double& v : values) v *= factor;
  return values;
}

void add(const Values& from, Values& to) {
  for (size_t i = 0; i < from.size(); ++i) to[i] += from[i];
}

// What a stage should be and by how much it may miss.
struct Expected {
  Values value, bound;
};

StageError compare(std::string_view stage, std::optional<Projection> projection,
                   std::span<const float> found, const Expected& expected, int64_t columns) {
  StageError out{stage, projection, 0, 0, 0, 0};
  double difference = 0, size = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    const double error = std::abs(static_cast<double>(found[i]) - expected.value[i]);
    difference += error * error;
    size += expected.value[i] * expected.value[i];
    double ratio = error == 0 ? 0 : error / expected.bound[i];
    if (std::isnan(ratio)) ratio = std::numeric_limits<double>::infinity();
    if (ratio <= out.worst) continue;
    out.worst = ratio;
    out.pair = static_cast<int64_t>(i) / columns;
    out.column = static_cast<int64_t>(i) % columns;
  }
  out.relative = std::sqrt(size > 0 ? difference / size : difference);
  return out;
}

class Checker {
 public:
  Checker(const MoeLayer& layer, const MoeWeights& weights, const Routing& routing,
          const MoeStages<float>& found, const StageRounding& rounding, int threads)
      : layer_(layer),
        weights_(weights),
        routing_(routing),
        found_(found),
        bf16_(rounding.bf16 ? kBf16 : 0),
        threads_(threads),
        groups_(group_by_expert(routing)) {}

  std::vector<StageError> check(std::span<const float> x) {
    check_input(x);
    for (const Projection p : layer_.inner()) check_projection(p, found_.input);
    check_hidden();
    check_projection(Projection::down, found_.hidden);
    check_out();
    return std::move(errors_);
  }

 private:
  void check_input(std::span<const float> x) {
    const bool weighed = layer_.router_weight == RouterWeight::input;
    Expected expected{pair_inputs<double>(layer_, routing_, in_double(x)), {}};
    expected.bound = scaled(expected.value, weighed ? std::max(bf16_, kFloat) : 0);
    for (double& b : expected.bound) b = std::abs(b);
    errors_.push_back(compare("input", {}, found_.input, expected, layer_.width));
  }

  void check_projection(Projection p, std::span<const float> in_float) {
    const ProjectionStages<float>& found = found_.projections.at(p);
    const ExpertLinear<double> exact(weights_, groups_, p, routing_.pairs(), threads_);
    const Values in = in_double(in_float);
    const auto length = static_cast<double>(layer_.in_dim(p));
    const int64_t out = layer_.out_dim(p), rank = exact.rank();
    Expected base = bounded(exact.base(in, true), length * kFloat);
    if (rank > 0) {
      const Expected z = bounded(exact.rank(in, true), length * kFloat);
      errors_.push_back(compare("rank", p, found.rank, z, rank));
      const double factor = static_cast<double>(rank) * kFloat + bf16_;
      const Expected delta = bounded(exact.delta(in_double(found.rank), true), factor);
      if (!found.delta.empty()) {
        errors_.push_back(compare("delta", p, found.delta, delta, out));
      } else {
        add(delta.value, base.value);
        add(delta.bound, base.bound);
      }
    }
    errors_.push_back(compare("base", p, found.base, base, out));
  }

  static Expected bounded(Evaluated<double> exact, double factor) {
    return {std::move(exact.value), scaled(std::move(exact.magnitude), factor)};
  }

  // base + delta of one element, and what its float sum may be off.
  std::pair<double, double> sum_at(Projection p, size_t i) const {
    const ProjectionStages<float>& s = found_.projections.at(p);
    const double base = s.base[i], delta = s.delta.empty() ? 0 : s.delta[i];
    // A bias may have been added last, so the parts may be larger than the sum.
    const double bias = largest_bias_ * (weights_.base.biases.empty() ? 0 : 1);
    return {base + delta, 2 * kFloat * (std::abs(base) + std::abs(delta) + 2 * bias)};
  }

  void check_hidden() {
    find_largest_bias();
    Expected expected{Values(found_.hidden.size()), Values(found_.hidden.size())};
    for (size_t i = 0; i < expected.value.size(); ++i) {
      const auto [u, u_error] = sum_at(Projection::up, i);
      const auto [g, g_error] = layer_.gated ? sum_at(Projection::gate, i) : std::pair(u, u_error);
      expected.value[i] = activate(layer_, g, u);
      expected.bound[i] =
          hidden_bound(g, g_error, u, u_error) + bf16_ * std::abs(expected.value[i]);
    }
    errors_.push_back(compare("hidden", {}, found_.hidden, expected, layer_.intermediate));
  }

  double hidden_bound(double g, double g_error, double u, double u_error) const {
    g = std::min(std::abs(g), layer_.limit);  // |f(g)| <= |g| but for relu2
    u = std::min(std::abs(u), layer_.limit);
    const double factor = !layer_.gated                                     ? 1
                          : layer_.activation == Activation::gpt_oss_swiglu ? u + 1
                                                                            : u;
    const bool square = layer_.activation == Activation::relu2;
    const double slope = square ? 2 * (g + g_error) : 1.2, size = square ? g * g : g;
    return slope * factor * g_error + (layer_.gated ? size * u_error : 0) + 0x1p-21 * size * factor;
  }

  void find_largest_bias() {
    for (const auto& entry : weights_.base.biases)
      for (const Tensor& bias : entry.second)
        for (const double v : read_double(bias))
          largest_bias_ = std::max(largest_bias_, std::abs(v));
  }

  void check_out() {
    const ProjectionStages<float>& s = found_.projections.at(Projection::down);
    Values down = in_double(s.base), size = down;
    for (double& v : size) v = std::abs(v) + 2 * largest_bias_;
    for (size_t i = 0; i < s.delta.size(); ++i) {
      down[i] += s.delta[i];
      size[i] += std::abs(s.delta[i]);
    }
    Routing absolute = routing_;
    for (float& w : absolute.weights) w = std::abs(w);
    MoeLayer positive = layer_;
    positive.routed_scaling = std::abs(layer_.routed_scaling);
    const double factor = static_cast<double>(routing_.top_k + 4) * kFloat;
    const Expected expected{combine_pairs<double>(layer_, routing_, down),
                            scaled(combine_pairs<double>(positive, absolute, size), factor)};
    errors_.push_back(compare("out", {}, found_.out, expected, layer_.width));
  }

  const MoeLayer& layer_;
  const MoeWeights& weights_;
  const Routing& routing_;
  const MoeStages<float>& found_;
  double bf16_;
  int threads_;
  std::vector<ExpertGroup> groups_;
  double largest_bias_ = 0;
  std::vector<StageError> errors_;
};

}  // namespace

std::vector<StageError> check_stages(const MoeLayer& layer, const MoeWeights& weights,
                                     const Routing& routing, std::span<const float> x,
                                     const MoeStages<float>& found, const StageRounding& rounding,
                                     int threads) {
  return Checker(layer, weights, routing, found, rounding, threads).check(x);
}

}  // namespace moelora::test
