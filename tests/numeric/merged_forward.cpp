#include "tests/numeric/merged_forward.h"

#include <cmath>

#include "lib/base/cast.h"

namespace moelora::test {
namespace {

std::vector<double> merged(const MoeWeights& weights, Projection p, int64_t e) {
  const Tensor& base = weights.base.weight(p, e);
  std::vector<double> w = read_double(base);
  const auto found = weights.lora.find(p);
  if (found == weights.lora.end() || !found->second.a.has(e) || !found->second.b.has(e)) return w;
  const Tensor &at = found->second.a.at(e), &bt = found->second.b.at(e);
  const std::vector<double> a = read_double(at), b = read_double(bt);
  const auto out = static_cast<size_t>(base.dim(0)), in = static_cast<size_t>(base.dim(1));
  const auto rank = static_cast<size_t>(at.dim(0));
  const double scale = found->second.scaling_of(e).alpha / static_cast<double>(rank);
  for (size_t o = 0; o < out; ++o)
    for (size_t i = 0; i < in; ++i)
      for (size_t k = 0; k < rank; ++k) w[o * in + i] += scale * b[o * rank + k] * a[k * in + i];
  return w;
}

std::vector<double> bias_of(const MoeWeights& weights, Projection p, int64_t e) {
  const Tensor* bias = weights.base.bias(p, e);
  return bias == nullptr ? std::vector<double>() : read_double(*bias);
}

std::vector<double> times(const std::vector<double>& w, const std::vector<double>& x,
                          const std::vector<double>& bias) {
  std::vector<double> out(w.size() / x.size());
  for (size_t o = 0; o < out.size(); ++o) {
    for (size_t i = 0; i < x.size(); ++i) out[o] += w[o * x.size() + i] * x[i];
    if (!bias.empty()) out[o] += bias[o];
  }
  return out;
}

double sigmoid(double v) { return 1 / (1 + std::exp(-v)); }

double smooth(Activation kind, double v) {
  switch (kind) {
    case Activation::silu:
      return v * sigmoid(v);
    case Activation::gelu:
      return v * 0.5 * std::erfc(-v * 0.70710678118654752440);
    case Activation::gelu_tanh:
      return v * sigmoid(2 * 0.79788456080286535588 * (v + 0.044715 * v * v * v));
    case Activation::relu2:
      return v > 0 ? v * v : 0;
    case Activation::gpt_oss_swiglu:
      break;
  }
  return std::nan("");
}

double neuron(const MoeLayer& layer, double gate, double up) {
  if (!layer.gated) return smooth(layer.activation, up);
  if (gate > layer.limit) gate = layer.limit;
  if (up > layer.limit) up = layer.limit;
  if (up < -layer.limit) up = -layer.limit;
  if (layer.activation == Activation::gpt_oss_swiglu)
    return (up + 1) * gate * sigmoid(layer.alpha * gate);
  return smooth(layer.activation, gate) * up;
}

std::vector<double> through(const MoeLayer& layer, const MergedExpert& expert,
                            const std::vector<double>& x) {
  const std::vector<double> up = times(expert.up, x, expert.up_bias);
  std::vector<double> gate = up, hidden(up.size());
  if (layer.gated) gate = times(expert.gate, x, expert.gate_bias);
  for (size_t i = 0; i < up.size(); ++i) hidden[i] = neuron(layer, gate[i], up[i]);
  return times(expert.down, hidden, expert.down_bias);
}

}  // namespace

MergedExpert merged_expert(const MoeLayer& layer, const MoeWeights& weights, int64_t e) {
  MergedExpert out;
  if (layer.gated) {
    out.gate = merged(weights, Projection::gate, e);
    out.gate_bias = bias_of(weights, Projection::gate, e);
  }
  out.up = merged(weights, Projection::up, e);
  out.up_bias = bias_of(weights, Projection::up, e);
  out.down = merged(weights, Projection::down, e);
  out.down_bias = bias_of(weights, Projection::down, e);
  return out;
}

std::vector<double> merged_forward(const MoeLayer& layer, const Routing& routing,
                                   const std::vector<double>& x,
                                   const std::function<MergedExpert(int64_t)>& expert_of) {
  const auto width = static_cast<size_t>(layer.width), top_k = static_cast<size_t>(routing.top_k);
  std::vector<double> y(x.size());
  for (int64_t e = 0; e < layer.experts; ++e) {
    const MergedExpert expert = expert_of(e);
    for (size_t p = 0; p < routing.experts.size(); ++p) {
      if (routing.experts[p] != e) continue;
      const size_t at = p / top_k * width;
      const double w = static_cast<double>(routing.weights[p]);
      const bool weigh_input = layer.router_weight == RouterWeight::input;
      std::vector<double> in(width);
      for (size_t i = 0; i < width; ++i) in[i] = x[at + i] * (weigh_input ? w : 1);
      const std::vector<double> out = through(layer, expert, in);
      for (size_t i = 0; i < width; ++i)
        y[at + i] += layer.routed_scaling * (weigh_input ? 1 : w) * out[i];
    }
  }
  return y;
}

}  // namespace moelora::test
