#include "lib/forward/experts.h"

#include <algorithm>
#include <type_traits>

#include "lib/numeric/expert_linear.h"
#include "lib/numeric/moe_forward.h"

namespace moelora {
namespace {

// A pair of a token and one of its experts as a token that has that expert alone: what the router
// weighs it with is T's then, and not rounded to float.
Routing routing_of_pairs(
    const Eigen::Ref<const Eigen::Matrix<int32_t, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>>&
        of) {
  Routing out;
  out.tokens = of.size();
  out.top_k = 1;
  out.experts.assign(of.data(), of.data() + of.size());
  out.weights.assign(static_cast<size_t>(of.size()), 1.0F);
  return out;
}

// Tokens whose experts' stages fit into the memory of the pass: of each pair its input twice, gate,
// up and down with and without LoRA, the hidden values and the result.
template <class T>
int64_t tokens_at_once(const MoeLayer& layer, const LayerPass<T>& pass, int64_t top_k) {
  const int64_t pair = 7 * layer.width + 7 * layer.intermediate;
  const auto token = static_cast<uint64_t>(pair * top_k) * sizeof(T);
  return std::max<int64_t>(1, static_cast<int64_t>(pass.memory() / std::max<uint64_t>(1, token)));
}

// What each pair's expert gives, [pairs, width].
template <class T>
Matrix<T> of_pairs(const MoeLayer& layer, const MoeWeights& weights, const Routing& routing,
                   const Matrix<T>& in, const LayerPass<T>& pass) {
  const std::span<const T> rows(in.data(), static_cast<size_t>(in.size()));
  const MoeStages<T> stages = forward_cpu<T>(layer, weights, routing, rows, pass.threads());
  return Eigen::Map<const Matrix<T>>(stages.out.data(), in.rows(), layer.width);
}

// The same, stage by stage, each rounded as a server stores it: gate and up, h, down.
Matrix<float> rounded_of_pairs(const MoeLayer& layer, const MoeWeights& weights,
                               const Routing& routing, const Matrix<float>& in, int threads) {
  const std::vector<ExpertGroup> groups = group_by_expert(routing);
  const auto stage = [&](Projection p, const Matrix<float>& x) {
    const ExpertLinear<float> linear(weights, groups, p, routing.pairs(), threads);
    const std::span<const float> rows(x.data(), static_cast<size_t>(x.size()));
    std::vector<float> sum = linear.base(rows).value;
    if (linear.rank() > 0) {
      const std::vector<float> delta = linear.delta(linear.rank(rows).value).value;
      for (size_t i = 0; i < sum.size(); ++i) sum[i] += delta[i];
    }
    Matrix<float> out = Eigen::Map<const Matrix<float>>(sum.data(), x.rows(), layer.out_dim(p));
    round_to_bf16(out);
    return out;
  };
  const Matrix<float> up = stage(Projection::up, in);
  const Matrix<float> gate = layer.gated ? stage(Projection::gate, in) : up;
  Matrix<float> hidden =
      gate.binaryExpr(up, [&](float g, float u) { return activate(layer, g, u); });
  round_to_bf16(hidden);
  return stage(Projection::down, hidden);
}

template <class T>
Matrix<T> run_part(const MoeLayer& layer, const MoeWeights& weights, const Chosen<T>& chosen,
                   const Matrix<T>& x, const LayerPass<T>& pass) {
  const int64_t top_k = chosen.experts.cols();
  const bool on_input = layer.router_weight == RouterWeight::input;
  Matrix<T> in(x.rows() * top_k, x.cols());
  for (int64_t p = 0; p < in.rows(); ++p) {
    in.row(p) = x.row(p / top_k);
    if (on_input) in.row(p) *= chosen.weights(p / top_k, p % top_k);
  }
  pass.round(in);
  MoeLayer apart = layer;
  apart.router_weight = RouterWeight::output;
  const Routing routing = routing_of_pairs(chosen.experts);
  Matrix<T> results;
  if constexpr (std::is_same_v<T, float>)
    results = pass.rounds() ? rounded_of_pairs(apart, weights, routing, in, pass.threads())
                            : of_pairs<T>(apart, weights, routing, in, pass);
  else
    results = of_pairs<T>(apart, weights, routing, in, pass);
  Matrix<T> out = Matrix<T>::Zero(x.rows(), layer.width);
  for (int64_t p = 0; p < in.rows(); ++p)
    out.row(p / top_k) += results.row(p) * (on_input ? T{1} : chosen.weights(p / top_k, p % top_k));
  pass.round(out);
  return out;
}

}  // namespace

template <class T>
Matrix<T> run_experts(const MoeLayer& layer, const LayerPass<T>& pass, const Chosen<T>& chosen,
                      const Matrix<T>& x) {
  const MoeWeights weights = pass.weights().experts(pass.layer());
  const int64_t step = tokens_at_once(layer, pass, chosen.experts.cols());
  Matrix<T> out(x.rows(), layer.width);
  for (int64_t first = 0; first < x.rows(); first += step) {
    const int64_t count = std::min(step, x.rows() - first);
    const Chosen<T> part{chosen.experts.middleRows(first, count),
                         chosen.weights.middleRows(first, count)};
    out.middleRows(first, count) =
        run_part<T>(layer, weights, part, x.middleRows(first, count), pass);
  }
  return out;
}

template Matrix<float> run_experts(const MoeLayer&, const LayerPass<float>&, const Chosen<float>&,
                                   const Matrix<float>&);
template Matrix<double> run_experts(const MoeLayer&, const LayerPass<double>&,
                                    const Chosen<double>&, const Matrix<double>&);

}  // namespace moelora
