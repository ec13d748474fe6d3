#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/numeric/device_layer.h"

namespace moelora {

// How a layer is cut up to go through a card: all experts and all tokens at once where they fit.
struct DevicePlan {
  kernels::Path path = kernels::Path::per_expert;
  int64_t experts = 0, tokens = 0;  // at a time
};
std::string to_string(
    const DevicePlan& plan);  // "cuBLAS, expert by expert; at a time: experts 32, ..."

struct DeviceForwardOptions {
  std::optional<kernels::Path> path;  // not set: the fastest, by estimate
  int streams = 8;
  bool keep_delta = false;  // base and delta apart in the stages
  int threads = 0;          // that read weights; 0: all cores
};

// The plan that is tried first.
DevicePlan first_plan(const MoeLayer& layer, const Routing& routing,
                      const DeviceForwardOptions& options = {});

// The layer of moe_forward.h on a card: weights, factors and x rounded to BF16, sums and results in
// float; on the fast paths the input of down (h) and s A x are rounded to BF16 too, and so is w x
// where the router weighs the input. Deterministic for a card, CUDA version and plan. Where the
// card's memory does not suffice, a smaller plan is tried, until one expert and one token do not
// fit. Returns y [T, H]. `stages` and `used` may be null. Throws DeviceMemoryError, Error.
std::vector<float> forward_device(Device& device, const MoeLayer& layer, const MoeWeights& weights,
                                  const Routing& routing, std::span<const float> x,
                                  const DeviceForwardOptions& options = {},
                                  MoeStages<float>* stages = nullptr, DevicePlan* used = nullptr);

}  // namespace moelora
