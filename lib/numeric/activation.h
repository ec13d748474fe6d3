#pragma once

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lib/numeric/moe_forward.h"

namespace moelora {

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

}  // namespace moelora
