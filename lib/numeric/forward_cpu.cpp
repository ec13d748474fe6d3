#include "lib/numeric/forward_cpu.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/numeric/expert_linear.h"

namespace moelora {
namespace {

template <class T>
std::vector<T> sum(const std::vector<T>& a, const std::vector<T>& b) {
  std::vector<T> out(a.size());
  std::transform(a.begin(), a.end(), b.begin(), out.begin(), [](T x, T y) { return x + y; });
  return out;
}

template <class T>
void append(const std::vector<T>& from, std::vector<T>& to) {
  to.insert(to.end(), from.begin(), from.end());
}

template <class T>
void append(const MoeStages<T>& from, MoeStages<T>& to) {
  append(from.input, to.input);
  append(from.hidden, to.hidden);
  append(from.out, to.out);
  for (const auto& [projection, stages] : from.projections) {
    ProjectionStages<T>& into = to.projections[projection];
    append(stages.base, into.base);
    append(stages.rank, into.rank);
    append(stages.delta, into.delta);
  }
}

template <class T>
class Forward {
 public:
  Forward(const MoeLayer& layer, const MoeWeights& weights, const Routing& routing, int threads)
      : layer_(layer),
        weights_(weights),
        routing_(routing),
        groups_(group_by_expert(routing)),
        threads_(threads) {}

  MoeStages<T> run(std::span<const T> x) const {
    MoeStages<T> out;
    out.input = pair_inputs(layer_, routing_, x);
    for (const Projection p : layer_.inner()) out.projections[p] = linear(p, out.input);
    const std::vector<T> gate = layer_.gated ? total(out, Projection::gate) : std::vector<T>();
    const std::vector<T> up = total(out, Projection::up);
    out.hidden = activate_pairs<T>(layer_, gate, up);
    out.projections[Projection::down] = linear(Projection::down, out.hidden);
    out.out = combine_pairs<T>(layer_, routing_, total(out, Projection::down));
    return out;
  }

 private:
  ProjectionStages<T> linear(Projection p, std::span<const T> in) const {
    const ExpertLinear<T> stage(weights_, groups_, p, routing_.pairs(), threads_);
    ProjectionStages<T> out{stage.base(in).value, stage.rank(in).value, {}};
    if (stage.rank() > 0) out.delta = stage.delta(out.rank).value;
    return out;
  }

  static std::vector<T> total(const MoeStages<T>& stages, Projection p) {
    const ProjectionStages<T>& s = stages.projections.at(p);
    return s.delta.empty() ? s.base : sum(s.base, s.delta);
  }

  const MoeLayer& layer_;
  const MoeWeights& weights_;
  const Routing& routing_;
  std::vector<ExpertGroup> groups_;
  int threads_;
};

template <class T>
int64_t tokens_at_a_time(const MoeLayer& layer, const Routing& routing, uint64_t memory) {
  const int64_t values = 4 * layer.width + 7 * layer.intermediate;  // of one pair, all stages
  const auto bytes =
      static_cast<uint64_t>(std::max<int64_t>(1, values * routing.top_k)) * sizeof(T);
  return std::max<int64_t>(1, static_cast<int64_t>(memory / bytes));
}

}  // namespace

template <class T>
std::vector<T> forward_cpu(const MoeLayer& layer, const MoeWeights& weights, const Routing& routing,
                           std::span<const T> x, const ForwardOptions& options,
                           MoeStages<T>* stages) {
  check_weights(weights, layer);
  check_routing(routing, layer, "routing");
  if (static_cast<int64_t>(x.size()) != routing.tokens * layer.width)
    throw Error("x", fmt::format("has {} values, expected {} tokens of width {}", x.size(),
                                 routing.tokens, layer.width));
  if (stages != nullptr) *stages = {};
  std::vector<T> out;
  out.reserve(x.size());
  const int64_t step = tokens_at_a_time<T>(layer, routing, options.memory);
  for (int64_t first = 0; first < routing.tokens; first += step) {
    const int64_t count = std::min(step, routing.tokens - first);
    const Routing part = routing.part(first, count);
    const auto rows = x.subspan(static_cast<size_t>(first * layer.width),
                                static_cast<size_t>(count * layer.width));
    const MoeStages<T> result = Forward<T>(layer, weights, part, options.threads).run(rows);
    append(result.out, out);
    if (stages != nullptr) append(result, *stages);
  }
  return out;
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
std::vector<T> activate_pairs(const MoeLayer& layer, std::span<const T> gate,
                              std::span<const T> up) {
  std::vector<T> out(up.size());
  for (size_t i = 0; i < out.size(); ++i)
    out[i] = activate(layer, layer.gated ? gate[i] : T{0}, up[i]);
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

template std::vector<float> forward_cpu(const MoeLayer&, const MoeWeights&, const Routing&,
                                        std::span<const float>, const ForwardOptions&,
                                        MoeStages<float>*);
template std::vector<double> forward_cpu(const MoeLayer&, const MoeWeights&, const Routing&,
                                         std::span<const double>, const ForwardOptions&,
                                         MoeStages<double>*);
template std::vector<double> pair_inputs(const MoeLayer&, const Routing&, std::span<const double>);
template std::vector<double> activate_pairs(const MoeLayer&, std::span<const double>,
                                            std::span<const double>);
template std::vector<double> combine_pairs(const MoeLayer&, const Routing&,
                                           std::span<const double>);

}  // namespace moelora
