#include "lib/compare/forward_check.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "lib/adapter/gate_up.h"
#include "lib/adapter/random_source.h"
#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/base/progress.h"
#include "lib/numeric/device_forward.h"
#include "lib/numeric/forward_cpu.h"

namespace moelora {
namespace {

// Runs layers with their deltas apart, where the user wants it.
class Runner {
 public:
  Runner(const ForwardCheckOptions& options, StageReport& report)
      : options_(options), device_(options.where.device.get()), report_(report) {
    report_.device = device_ == nullptr ? "CPU, float" : device_->description();
    report_.why_cpu = options.where.reason;
  }

  MoeStages<float> run(const MoeLayer& layer, const MoeWeights& weights, const Routing& routing,
                       const std::vector<float>& x) {
    MoeStages<float> out;
    if (device_ == nullptr) {
      forward_cpu<float>(layer, weights, routing, x, {options_.threads}, &out);
      return out;
    }
    DeviceForwardOptions how;
    how.keep_delta = true;
    how.threads = options_.threads;
    DevicePlan plan;
    forward_device(*device_, layer, weights, routing, x, how, &out, &plan);
    report_.device = fmt::format("{} ({})", device_->description(), to_string(plan));
    return out;
  }

  StageRounding rounding() const { return {device_ != nullptr}; }

 private:
  const ForwardCheckOptions& options_;
  Device* device_;
  StageReport& report_;
};

// The base of one layer after the other.
class Bases {
 public:
  Bases(const ForwardBase& given, const MoeLayer& layer, uint64_t seed) : given_(given) {
    if (given.tensors == nullptr) stand_in_ = stand_in(layer, seed);
  }

  BaseWeights of(int layer) const {
    if (given_.tensors == nullptr) return stand_in_;
    return read_base_weights(*given_.tensors, *given_.spec, layer, given_.where);
  }

  std::string text(const BaseWeights& base) const {
    return given_.tensors == nullptr ? base.form : fmt::format("{} of {}", base.form, given_.where);
  }

 private:
  static Tensor held(const Tensor& tensor) {
    return Tensor(std::make_shared<MemorySource>(tensor.dtype(), tensor.read()), tensor.shape());
  }

  static BaseWeights stand_in(const MoeLayer& layer, uint64_t seed) {
    BaseWeights out =
        synthetic_base({1, layer.width, layer.intermediate, layer.gated, false, seed, 0});
    for (auto& [projection, weights] : out.weights)
      weights.assign(static_cast<size_t>(layer.experts), held(weights[0]));
    return out;
  }

  const ForwardBase& given_;
  BaseWeights stand_in_;
};

// Experts in turn, so that all are chosen `each` times, or once more.
Routing even_routing(int64_t experts, int64_t each) {
  Routing out;
  out.top_k = std::min<int64_t>(experts, 8);
  out.tokens = (experts * each + out.top_k - 1) / out.top_k;
  for (int64_t pair = 0; pair < out.pairs(); ++pair)
    out.experts.push_back(static_cast<int32_t>(pair % experts));
  out.weights.assign(out.experts.size(), 1.0F / static_cast<float>(out.top_k));
  return out;
}

std::vector<float> random_tokens(int64_t tokens, int64_t width, uint64_t seed, int layer) {
  const SourcePtr numbers =
      random_source(seed, fmt::format("tokens.{}", layer), tokens * width, std::sqrt(3.0));
  const std::vector<double> values =
      read_double(Tensor(cast_source(numbers, DType::BF16), {tokens * width}));
  return {values.begin(), values.end()};
}

std::set<int> layers_of(const Adapter& a, const Adapter& b) {
  std::set<int> out;
  for (const Adapter* adapter : {&a, &b})
    for (const auto& entry : adapter->experts) out.insert(entry.first.layer);
  return out;
}

// Of a layer's weights in BF16.
uint64_t bytes_of(const MoeLayer& layer) {
  const int64_t matrices = layer.gated ? 3 : 2;
  return static_cast<uint64_t>(matrices * layer.experts * layer.width * layer.intermediate) * 2;
}

void note(const DeltaError& error, int layer, StageReport& report) {
  ++report.deltas;
  if (!error.within) {
    report.differences.push_back({error, layer});
    return;
  }
  report.relative = std::max(report.relative, error.relative);
  report.worst = std::max(report.worst, error.worst);
}

}  // namespace

StageReport check_forward(const Adapter& packed, const Adapter& source, const MoeLayer& layer,
                          const ForwardBase& base, const ForwardCheckOptions& options) {
  Adapter one = packed, other = source;
  split_gate_up(one);
  split_gate_up(other);
  const Bases bases(base, layer, options.seed);
  const Routing routing = even_routing(layer.experts, options.pairs_per_expert);
  StageReport report;
  report.experts = layer.experts;
  report.tokens = routing.tokens;
  Runner runner(options, report);
  const std::set<int> layers = layers_of(one, other);
  const uint64_t bytes = bytes_of(layer);
  ProgressMeter progress("computing", bytes * layers.size(), options.job);
  for (const int at : layers) {
    const MoeWeights mine{bases.of(at), layer_lora(one, at)};
    const MoeWeights theirs{mine.base, layer_lora(other, at)};
    check_weights(theirs, layer);
    const std::vector<float> x = random_tokens(routing.tokens, layer.width, options.seed, at);
    const MoeStages<float> found = runner.run(layer, mine, routing, x);
    const DeltaCheck check{layer, mine, theirs, routing, runner.rounding(), options.threads};
    for (const DeltaError& error : check_deltas(check, found)) note(error, at, report);
    report.base = bases.text(mine.base);
    ++report.layers;
    progress.add(bytes);
  }
  return report;
}

MoeLayer layer_of(const Adapter& adapter) {
  Adapter split = adapter;
  split_gate_up(split);
  MoeLayer out;
  out.experts = split.expert_count;
  out.gated = false;
  for (const auto& [key, pair] : split.experts) {
    const bool down = key.projection == Projection::down;
    out.gated = out.gated || key.projection == Projection::gate;
    for (int64_t e = 0; e < out.experts; ++e) {
      if (pair.a.has(e)) (down ? out.intermediate : out.width) = pair.a.at(e).dim(1);
      if (pair.b.has(e)) (down ? out.width : out.intermediate) = pair.b.at(e).dim(0);
    }
  }
  if (out.experts == 0 || out.width == 0 || out.intermediate == 0)
    throw Error("adapter", "has no LoRA on routed experts");
  return out;
}

}  // namespace moelora
