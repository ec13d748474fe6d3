#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "lib/numeric/device.h"
#include "lib/numeric/moe_forward.h"

namespace moelora {

// Experts [first, first + count) of a layer on the card, in BF16.
struct ExpertWindow {
  int64_t first, count;
};

// Weights are read, decoded and rounded by `threads` threads (0: all cores), one expert each, and
// copied one after the other. Throws DeviceMemoryError, Error.
class DeviceLayer {
 public:
  // Refers to `device`, to none of the others.
  DeviceLayer(Device& device, const MoeLayer& layer, const MoeWeights& weights,
              const ExpertWindow& window, int threads = 0);
  ~DeviceLayer();
  DeviceLayer(const DeviceLayer&) = delete;
  DeviceLayer& operator=(const DeviceLayer&) = delete;

  Device& device() const { return device_; }
  kernels::Layer* handle() const { return handle_; }
  const MoeLayer& layer() const { return layer_; }
  const ExpertWindow& window() const { return window_; }
  int64_t rank(Projection p) const;

 private:
  void load(const MoeWeights& weights, int threads);

  Device& device_;
  MoeLayer layer_;
  ExpertWindow window_;
  kernels::LayerShape shape_;
  kernels::Layer* handle_ = nullptr;
};

// Tokens on the card, ready to run through a layer; choices of experts outside its window are left
// out. Throws DeviceMemoryError, Error.
class DeviceBatch {
 public:
  // x [T, H] is rounded to BF16. Refers to `layer`.
  DeviceBatch(const DeviceLayer& layer, const Routing& routing, std::span<const float> x,
              const kernels::Plan& plan);
  ~DeviceBatch();
  DeviceBatch(const DeviceBatch&) = delete;
  DeviceBatch& operator=(const DeviceBatch&) = delete;

  void run();
  std::vector<float> out() const;  // [T, H]
  // Without kernels::Plan::keep_delta, `base` is base + delta and `delta` empty on the fast paths.
  MoeStages<float> stages() const;

  const DeviceLayer& layer() const { return layer_; }
  kernels::Batch* handle() const { return handle_; }

 private:
  std::vector<float> read(kernels::Stage stage, Projection p, int64_t rows, int64_t columns) const;

  const DeviceLayer& layer_;
  int64_t tokens_, pairs_;
  bool deltas_;
  kernels::Batch* handle_ = nullptr;
};

// How a layer is cut up to go through a card: all experts and all tokens at once where they fit.
struct DevicePlan {
  kernels::Path path = kernels::Path::per_expert;
  int64_t experts = 0, tokens = 0;  // at a time
};
// "cuBLAS, expert by expert; at a time: experts 32, tokens 16"
std::string to_string(const DevicePlan& plan);

struct DeviceForwardOptions {
  std::optional<kernels::Path> path = {};  // not set: the fastest, by estimate
  bool keep_delta = false;                 // base and delta apart in the stages
  int threads = 0;                         // that read weights; 0: all cores
};

// The plan that is tried first.
DevicePlan first_plan(const MoeLayer& layer, const Routing& routing,
                      const DeviceForwardOptions& options = {});

// The layer of moe_layer.h on a card: weights, factors and x rounded to BF16, sums and results in
// float; on the fast paths the input of down (h) and s A x are rounded to BF16 too, and so is w x
// where the router weighs the input. Deterministic for a card, CUDA version and plan. Where the
// card's memory does not suffice, a smaller plan is tried, until one expert and one token do not
// fit. Throws DeviceMemoryError, Error.
struct DeviceForward {
  MoeStages<float> stages;
  DevicePlan plan;  // that fit
};
DeviceForward forward_device(Device& device, const MoeLayer& layer, const MoeWeights& weights,
                             const Routing& routing, std::span<const float> x,
                             const DeviceForwardOptions& options = {});

}  // namespace moelora
