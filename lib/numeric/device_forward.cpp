#include "lib/numeric/device_forward.h"

#include <fmt/format.h>

#include <algorithm>

namespace moelora {
namespace {

std::string_view path_name(kernels::Path path) {
  switch (path) {
    case kernels::Path::naive:
      return "plain kernels";
    case kernels::Path::gathered:
      return "cuBLAS, chosen experts as one batch";
    case kernels::Path::batched:
      return "cuBLAS, experts as one batch";
    case kernels::Path::per_expert:
      break;
  }
  return "cuBLAS, expert by expert";
}

// A step towards less memory; false when there is none left. `weights`: they were what did not fit.
bool shrink(DevicePlan& plan, bool weights) {
  if (!weights && (plan.path == kernels::Path::batched || plan.path == kernels::Path::gathered)) {
    plan.path = kernels::Path::per_expert;
  } else if (!weights && plan.tokens > 1) {
    plan.tokens = (plan.tokens + 1) / 2;
  } else if (plan.experts > 1) {
    plan.experts = (plan.experts + 1) / 2;
  } else {
    return false;
  }
  return true;
}

void add(const std::vector<float>& from, size_t first, std::vector<float>& to) {
  for (size_t i = 0; i < from.size(); ++i) to[first + i] += from[i];
}

// Windows of experts and of tokens add up: rows of choices outside are zero.
class Sum {
 public:
  Sum(const MoeLayer& layer, const Routing& routing) : layer_(layer), routing_(routing) {}

  void add_out(const std::vector<float>& part, int64_t token) {
    grow_and_add(part, token, routing_.tokens * layer_.width, layer_.width, stages.out);
  }

  void add_stages(const MoeStages<float>& part, int64_t token) {
    const int64_t pair = token * routing_.top_k;
    grow_and_add(part.input, pair, layer_.width, stages.input);
    grow_and_add(part.hidden, pair, layer_.intermediate, stages.hidden);
    for (const auto& [p, from] : part.projections) {
      ProjectionStages<float>& to = stages.projections[p];
      const int64_t part_pairs = static_cast<int64_t>(from.base.size()) / layer_.out_dim(p);
      grow_and_add(from.base, pair, layer_.out_dim(p), to.base);
      grow_and_add(from.delta, pair, layer_.out_dim(p), to.delta);
      if (!from.rank.empty())
        grow_and_add(from.rank, pair, static_cast<int64_t>(from.rank.size()) / part_pairs, to.rank);
    }
  }

  MoeStages<float> stages;

 private:
  void grow_and_add(const std::vector<float>& part, int64_t row, int64_t columns,
                    std::vector<float>& to) {
    grow_and_add(part, row, routing_.pairs() * columns, columns, to);
  }
  static void grow_and_add(const std::vector<float>& part, int64_t row, int64_t size,
                           int64_t columns, std::vector<float>& to) {
    if (part.empty()) return;
    to.resize(static_cast<size_t>(size));
    add(part, static_cast<size_t>(row * columns), to);
  }

  const MoeLayer& layer_;
  const Routing& routing_;
};

class PlannedRun {
 public:
  PlannedRun(Device& device, const MoeLayer& layer, const MoeWeights& weights,
             const Routing& routing, std::span<const float> x, const DeviceForwardOptions& options)
      : device_(device),
        layer_(layer),
        weights_(weights),
        routing_(routing),
        x_(x),
        options_(options) {}

  // Throws DeviceMemoryError; weights_did_not_fit says at what.
  MoeStages<float> run(const DevicePlan& plan, bool keep_stages) {
    Sum sum(layer_, routing_);
    sum.stages.out.resize(x_.size());
    for (int64_t first = 0; first < layer_.experts; first += plan.experts) {
      weights_did_not_fit = true;
      const DeviceLayer on_card(device_, layer_, weights_,
                                {first, std::min(plan.experts, layer_.experts - first)},
                                options_.threads);
      weights_did_not_fit = false;
      for (int64_t token = 0; token < routing_.tokens; token += plan.tokens)
        run_tokens(on_card, plan, token, keep_stages, sum);
    }
    return std::move(sum.stages);
  }

  bool weights_did_not_fit = false;

 private:
  void run_tokens(const DeviceLayer& on_card, const DevicePlan& plan, int64_t token,
                  bool keep_stages, Sum& sum) const {
    const int64_t count = std::min(plan.tokens, routing_.tokens - token);
    const auto rows = x_.subspan(static_cast<size_t>(token * layer_.width),
                                 static_cast<size_t>(count * layer_.width));
    const kernels::Plan how = {plan.path, options_.streams, false, options_.keep_delta};
    DeviceBatch batch(on_card, routing_.part(token, count), rows, how);
    batch.run();
    if (keep_stages) sum.add_stages(batch.stages(), token);
    sum.add_out(batch.out(), token);
  }

  Device& device_;
  const MoeLayer& layer_;
  const MoeWeights& weights_;
  const Routing& routing_;
  std::span<const float> x_;
  const DeviceForwardOptions& options_;
};

// Microseconds of a layer's products, roughly: a Hopper card reads 4 bytes a picosecond and
// multiplies 0.6 PFLOP/s. Only their order matters.
double estimate(const MoeLayer& layer, size_t experts, double rows) {
  const double matrices = layer.gated ? 3 : 2;
  const double size = matrices * static_cast<double>(layer.width * layer.intermediate);
  return std::max(static_cast<double>(experts) * size * 2 / 4e6, rows * size * 2 / 6e8);
}

// One batch does padding too, but starts at once and keeps the card full; a product for each expert
// took 1.7 us to start, two an expert, and ran at 0.87 of the rate (tests/bench/RESULTS.md).
kernels::Path faster_path(const MoeLayer& layer, const Routing& routing) {
  const std::vector<ExpertGroup> groups = group_by_expert(routing);
  size_t longest = 0, rows = 0;
  for (const ExpertGroup& group : groups) {
    longest = std::max(longest, group.pairs.size());
    rows += group.pairs.size();
  }
  const size_t active = groups.size(), padded = active * ((longest + 7) / 8 * 8);
  const double batch = estimate(layer, active, static_cast<double>(padded));
  const double alone =
      estimate(layer, active, static_cast<double>(rows)) / 0.87 + 3.4 * static_cast<double>(active);
  if (alone < batch) return kernels::Path::per_expert;
  return active == static_cast<size_t>(layer.experts) ? kernels::Path::batched
                                                      : kernels::Path::gathered;
}

}  // namespace

std::string to_string(const DevicePlan& plan) {
  return fmt::format("{}; at a time: experts {}, tokens {}", path_name(plan.path), plan.experts,
                     plan.tokens);
}

DevicePlan first_plan(const MoeLayer& layer, const Routing& routing,
                      const DeviceForwardOptions& options) {
  return {options.path ? *options.path : faster_path(layer, routing), layer.experts,
          std::max<int64_t>(1, routing.tokens)};
}

std::vector<float> forward_device(Device& device, const MoeLayer& layer, const MoeWeights& weights,
                                  const Routing& routing, std::span<const float> x,
                                  const DeviceForwardOptions& options, MoeStages<float>* stages,
                                  DevicePlan* used) {
  check_routing(routing, layer, "routing");
  DevicePlan plan = first_plan(layer, routing, options);
  PlannedRun run(device, layer, weights, routing, x, options);
  for (;;) {
    try {
      MoeStages<float> result = run.run(plan, stages != nullptr);
      if (used != nullptr) *used = plan;
      std::vector<float> out = result.out;
      if (stages != nullptr) *stages = std::move(result);
      return out;
    } catch (const DeviceMemoryError&) {
      if (!shrink(plan, run.weights_did_not_fit)) throw;
    }
  }
}

}  // namespace moelora
