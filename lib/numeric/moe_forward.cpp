#include "lib/numeric/moe_forward.h"

#include <fmt/core.h>

#include "lib/base/error.h"
#include "lib/numeric/expert_linear.h"

namespace moelora {
namespace {

template <class T>
class Forward {
 public:
  Forward(const MoeLayer& layer, const MoeWeights& weights, const Routing& routing, int threads)
      : layer_(layer),
        weights_(weights),
        routing_(routing),
        groups_(group_by_expert(routing)),
        threads_(threads) {}

  MoeStages<T> run(std::span<const T> x, Until until) const {
    MoeStages<T> out;
    out.input = pair_inputs(layer_, routing_, x);
    for (const Projection p : layer_.inner()) out.projections[p] = linear(p, out.input, true);
    const std::vector<T> up = total(out, Projection::up);
    const std::vector<T> gate = layer_.gated ? total(out, Projection::gate) : up;
    out.hidden.resize(up.size());
    std::transform(gate.begin(), gate.end(), up.begin(), out.hidden.begin(),
                   [&](T g, T u) { return activate(layer_, g, u); });
    const bool to_output = until == Until::output;
    out.projections[Projection::down] = linear(Projection::down, out.hidden, to_output);
    if (!to_output) return out;
    out.out = combine_pairs<T>(layer_, routing_, total(out, Projection::down));
    return out;
  }

 private:
  ProjectionStages<T> linear(Projection p, std::span<const T> in, bool with_base) const {
    const ExpertLinear<T> stage(weights_, groups_, p, routing_.pairs(), threads_);
    ProjectionStages<T> out{
        with_base ? stage.base(in).value : std::vector<T>(), stage.rank(in).value, {}};
    if (stage.rank() > 0) out.delta = stage.delta(out.rank).value;
    return out;
  }

  static std::vector<T> total(const MoeStages<T>& stages, Projection p) {
    const ProjectionStages<T>& s = stages.projections.at(p);
    std::vector<T> out = s.base;
    for (size_t i = 0; i < s.delta.size(); ++i) out[i] += s.delta[i];
    return out;
  }

  const MoeLayer& layer_;
  const MoeWeights& weights_;
  const Routing& routing_;
  std::vector<ExpertGroup> groups_;
  int threads_;
};

}  // namespace

template <class T>
MoeStages<T> forward_cpu(const MoeLayer& layer, const MoeWeights& weights, const Routing& routing,
                         std::span<const T> x, int threads, Until until) {
  check_weights(weights, layer);
  check_routing(routing, layer, "routing");
  if (static_cast<int64_t>(x.size()) != routing.tokens * layer.width)
    throw Error("x", fmt::format("has {} values, expected {} tokens of width {}", x.size(),
                                 routing.tokens, layer.width));
  return Forward<T>(layer, weights, routing, threads).run(x, until);
}

template <class T>
std::vector<T> pair_inputs(const MoeLayer& layer, const Routing& routing, std::span<const T> x) {
  std::vector<T> out(static_cast<size_t>(routing.pairs() * layer.width));
  for (int64_t p = 0; p < routing.pairs(); ++p) {
    const auto at = static_cast<size_t>(p);
    if (routing.experts[at] < 0) continue;
    const T weight = layer.router_weight == RouterWeight::input ? T{routing.weights[at]} : T{1};
    const T* from = x.data() + p / routing.top_k * layer.width;
    std::transform(from, from + layer.width, out.data() + p * layer.width,
                   [&](T value) { return weight * value; });
  }
  return out;
}

template <class T>
std::vector<T> combine_pairs(const MoeLayer& layer, const Routing& routing,
                             std::span<const T> down) {
  std::vector<T> out(static_cast<size_t>(routing.tokens * layer.width));
  for (int64_t p = 0; p < routing.pairs(); ++p) {
    const auto at = static_cast<size_t>(p);
    if (routing.experts[at] < 0) continue;
    const T weight = layer.router_weight == RouterWeight::output ? T{routing.weights[at]} : T{1};
    T* to = out.data() + p / routing.top_k * layer.width;
    const T* from = down.data() + p * layer.width;
    for (int64_t c = 0; c < layer.width; ++c) to[c] += weight * from[c];
  }
  for (T& value : out) value *= static_cast<T>(layer.routed_scaling);
  return out;
}

template MoeStages<float> forward_cpu(const MoeLayer&, const MoeWeights&, const Routing&,
                                      std::span<const float>, int, Until);
template MoeStages<double> forward_cpu(const MoeLayer&, const MoeWeights&, const Routing&,
                                       std::span<const double>, int, Until);
template std::vector<double> pair_inputs(const MoeLayer&, const Routing&, std::span<const double>);
template std::vector<double> combine_pairs(const MoeLayer&, const Routing&,
                                           std::span<const double>);

}  // namespace moelora
