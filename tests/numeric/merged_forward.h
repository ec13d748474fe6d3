#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "lib/numeric/moe_layer.h"

namespace moelora::test {

// The same layer computed another way: the delta is merged into each weight first, W + s B A, and
// every token runs through plain loops in double. Knows nothing of lib/numeric but the structs.
struct MergedExpert {
  std::vector<double> gate, up, down;  // [I, H], [I, H], [H, I]
  std::vector<double> gate_bias, up_bias, down_bias;
};
MergedExpert merged_expert(const MoeLayer& layer, const MoeWeights& weights, int64_t expert);

// y [T, H]; `expert_of` makes an expert's weights when they are needed.
std::vector<double> merged_forward(const MoeLayer& layer, const Routing& routing,
                                   const std::vector<double>& x,
                                   const std::function<MergedExpert(int64_t)>& expert_of);

}  // namespace moelora::test
