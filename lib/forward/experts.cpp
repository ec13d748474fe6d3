#include "lib/forward/experts.h"

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

}  // namespace

template <class T>
Matrix<T> run_experts(const MoeLayer& layer, const LayerPass<T>& pass, const Chosen<T>& chosen,
                      const Matrix<T>& x) {
  const int64_t top_k = chosen.experts.cols();
  const bool on_input = layer.router_weight == RouterWeight::input;
  Matrix<T> in(x.rows() * top_k, x.cols());
  for (int64_t p = 0; p < in.rows(); ++p) {
    in.row(p) = x.row(p / top_k);
    if (on_input) in.row(p) *= chosen.weights(p / top_k, p % top_k);
  }
  MoeLayer apart = layer;
  apart.router_weight = RouterWeight::output;
  const std::span<const T> rows(in.data(), static_cast<size_t>(in.size()));
  const MoeStages<T> stages =
      forward_cpu<T>(apart, pass.weights().experts(pass.layer()), routing_of_pairs(chosen.experts),
                     rows, pass.threads());
  const Eigen::Map<const Matrix<T>> of_pairs(stages.out.data(), in.rows(), layer.width);
  Matrix<T> out = Matrix<T>::Zero(x.rows(), layer.width);
  for (int64_t p = 0; p < in.rows(); ++p)
    out.row(p / top_k) +=
        of_pairs.row(p) * (on_input ? T{1} : chosen.weights(p / top_k, p % top_k));
  return out;
}

template Matrix<float> run_experts(const MoeLayer&, const LayerPass<float>&, const Chosen<float>&,
                                   const Matrix<float>&);
template Matrix<double> run_experts(const MoeLayer&, const LayerPass<double>&,
                                    const Chosen<double>&, const Matrix<double>&);

}  // namespace moelora
