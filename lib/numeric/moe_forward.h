#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <numbers>
#include <span>
#include <vector>

#include "lib/numeric/moe_layer.h"

namespace moelora {

// Every intermediate result, for a comparison stage by stage. One row per pair, in order of pairs;
// rows of expert -1 are zero.
template <class T>
struct ProjectionStages {
  std::vector<T> base;   // [pairs, out]: W in + b
  std::vector<T> rank;   // [pairs, r]: A in, without the scale; r is the largest of any expert
  std::vector<T> delta;  // [pairs, out]: s B rank
};

template <class T>
struct MoeStages {
  std::map<Projection, ProjectionStages<T>> projections;
  std::vector<T> input;   // [pairs, H]: x_p
  std::vector<T> hidden;  // [pairs, I]: h
  std::vector<T> out;     // [T, H]: y
};

// How far a forward goes: to y, or to the last delta, down's, for which down's base product, a
// third of the arithmetic, is not needed. Then `base` of down and `out` are empty.
enum class Until : uint8_t { output, last_delta };

// The layer of moe_layer.h in T, float or double, with every intermediate result; double is what
// everything else is measured with. x [T, H] row-major. Beside the results each thread (0: all
// cores) holds one expert's matrix as stored. The result does not depend on `threads`. Throws Error
// when sizes or the routing do not fit, or weights cannot be read.
template <class T>
MoeStages<T> forward_cpu(const MoeLayer& layer, const MoeWeights& weights, const Routing& routing,
                         std::span<const T> x, int threads = 0, Until until = Until::output);

extern template MoeStages<float> forward_cpu(const MoeLayer&, const MoeWeights&, const Routing&,
                                             std::span<const float>, int, Until);
extern template MoeStages<double> forward_cpu(const MoeLayer&, const MoeWeights&, const Routing&,
                                              std::span<const double>, int, Until);

// The stages that are not matrix products, each from given inputs.

// x_p of all pairs: [pairs, H].
template <class T>
std::vector<T> pair_inputs(const MoeLayer& layer, const Routing& routing, std::span<const T> x);

// h of one neuron from its gate and up sums (moe_layer.h). Not gated: `gate` is not looked at.
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

// y: [T, H] from d [pairs, H].
template <class T>
std::vector<T> combine_pairs(const MoeLayer& layer, const Routing& routing,
                             std::span<const T> down);

// Where an implementation that sums in float rounds to BF16 on its way.
struct StageRounding {
  bool bf16 = false;  // x_p where it is weighed, s A x, h
};

}  // namespace moelora
