#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <numbers>
#include <span>
#include <vector>

#include "lib/numeric/moe_forward.h"

namespace moelora {

struct ForwardOptions {
  int threads = 0;               // 0: all cores
  uint64_t memory = 1ull << 30;  // bytes of intermediate results; more tokens go in several runs
};

// The layer of moe_forward.h in T, float or double; double is what everything else is measured
// with. x [T, H] row-major; returns y [T, H]. `stages` (not null) gets every intermediate result of
// all tokens, whatever options.memory says. Beside intermediate results each thread holds one
// expert's matrix as stored. The result depends on neither threads nor memory. Throws Error when
// sizes or the routing do not fit, or weights cannot be read.
template <class T>
std::vector<T> forward_cpu(const MoeLayer& layer, const MoeWeights& weights, const Routing& routing,
                           std::span<const T> x, const ForwardOptions& options = {},
                           MoeStages<T>* stages = nullptr);

extern template std::vector<float> forward_cpu(const MoeLayer&, const MoeWeights&, const Routing&,
                                               std::span<const float>, const ForwardOptions&,
                                               MoeStages<float>*);
extern template std::vector<double> forward_cpu(const MoeLayer&, const MoeWeights&, const Routing&,
                                                std::span<const double>, const ForwardOptions&,
                                                MoeStages<double>*);

// The stages that are no matrix products, each from given inputs, for all pairs.

// x_p: [pairs, H].
template <class T>
std::vector<T> pair_inputs(const MoeLayer& layer, const Routing& routing, std::span<const T> x);

// h of one neuron from its gate and up sums (moe_forward.h). Not gated: `gate` is not looked at.
template <class T>
T activate(const MoeLayer& layer, T gate, T up) {
  const auto limit = static_cast<T>(layer.limit);
  T g = layer.gated ? std::min(gate, limit) : up;
  const T u = layer.gated ? std::clamp(up, -limit, limit) : T{1};
  switch (layer.activation) {
    case Activation::silu:
      return g / (1 + std::exp(-g)) * u;
    case Activation::gelu:
      return g / 2 * (1 + std::erf(g / std::numbers::sqrt2_v<T>)) * u;
    case Activation::gelu_tanh: {
      const T slope = std::numbers::sqrt2_v<T> * std::numbers::inv_sqrtpi_v<T>;  // sqrt(2 / pi)
      return g / 2 * (1 + std::tanh(slope * (g + static_cast<T>(0.044715) * g * g * g))) * u;
    }
    case Activation::relu2:
      g = std::max(g, T{0});
      return g * g * u;
    case Activation::gpt_oss_swiglu:
      break;
  }
  return g / (1 + std::exp(-static_cast<T>(layer.alpha) * g)) * (u + 1);
}

// h: [pairs, I]. `gate` and `up` are base + delta; `gate` is empty where experts are not gated.
template <class T>
std::vector<T> activate_pairs(const MoeLayer& layer, std::span<const T> gate,
                              std::span<const T> up);

// y: [T, H] from d [pairs, H].
template <class T>
std::vector<T> combine_pairs(const MoeLayer& layer, const Routing& routing,
                             std::span<const T> down);

}  // namespace moelora
