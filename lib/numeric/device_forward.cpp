#include "lib/numeric/device_forward.h"

#include <fmt/core.h>

#include <algorithm>
#include <functional>
#include <mutex>

#include "lib/base/cast.h"
#include "lib/base/parallel.h"

namespace moelora {
namespace {

kernels::Projection index_of(Projection p) {
  return p == Projection::gate ? kernels::kGate
         : p == Projection::up ? kernels::kUp
                               : kernels::kDown;
}

// Both are numbered alike.
kernels::Activation activation_of(Activation a) {
  static_assert(static_cast<int>(Activation::gpt_oss_swiglu) ==
                static_cast<int>(kernels::Activation::gpt_oss_swiglu));
  return static_cast<kernels::Activation>(a);
}

bool shares_a(const MoeLayer& layer, const LayerLora& lora) {
  bool any = false;
  for (const Projection p : layer.inner()) {
    const auto found = lora.find(p);
    if (found == lora.end()) continue;
    if (!found->second.a.shared) return false;
    any = true;
  }
  return any;
}

kernels::LayerShape shape_of(const MoeLayer& layer, const LayerLora& lora, int64_t experts) {
  kernels::LayerShape out = {};
  out.experts = experts;
  out.width = layer.width;
  out.intermediate = layer.intermediate;
  for (const auto& [projection, pair] : lora) out.rank[index_of(projection)] = max_rank(pair);
  out.gated = layer.gated;
  out.shared_a = shares_a(layer, lora);
  out.weigh_input = layer.router_weight == RouterWeight::input;
  out.activation = activation_of(layer.activation);
  out.alpha = static_cast<float>(layer.alpha);
  out.limit = static_cast<float>(layer.limit);
  out.routed_scaling = static_cast<float>(layer.routed_scaling);
  return out;
}

std::vector<uint16_t> bf16_bits(const Tensor& tensor) {
  const Tensor rounded = tensor.map_sources(
      DType::BF16, [](const SourcePtr& s) { return cast_source(s, DType::BF16); });
  std::vector<uint16_t> out(static_cast<size_t>(tensor.elements()));
  rounded.read(reinterpret_cast<std::byte*>(out.data()));
  return out;
}

// [rows, columns] with zeros below and to the right.
std::vector<uint16_t> grown(const Tensor& tensor, int64_t rows, int64_t columns) {
  const std::vector<uint16_t> bits = bf16_bits(tensor);
  if (tensor.dim(0) == rows && tensor.dim(1) == columns) return bits;
  std::vector<uint16_t> out(static_cast<size_t>(rows * columns));
  for (int64_t r = 0; r < tensor.dim(0); ++r)
    std::copy_n(bits.begin() + r * tensor.dim(1), tensor.dim(1), out.begin() + r * columns);
  return out;
}

// One expert's arrays, and the view of them that the module takes.
class HostExpert {
 public:
  HostExpert(const MoeLayer& layer, const MoeWeights& weights, const kernels::LayerShape& shape,
             int64_t expert) {
    for (const Projection p : layer.projections())
      take(layer, weights, p, shape.rank[index_of(p)], expert);
  }
  const kernels::ExpertData& data() const { return data_; }

 private:
  struct Arrays {
    std::vector<uint16_t> weight, a, b;
    std::vector<float> bias;
  };

  void take(const MoeLayer& layer, const MoeWeights& weights, Projection p, int64_t rank,
            int64_t expert) {
    Arrays& arrays = arrays_[index_of(p)];
    kernels::ExpertData::Part& part = data_.part[index_of(p)];
    arrays.weight = bf16_bits(weights.base.weight(p, expert));
    part.weight = arrays.weight.data();
    if (const Tensor* bias = weights.base.bias(p, expert)) {
      for (const double value : read_double(*bias))
        arrays.bias.push_back(static_cast<float>(value));
      part.bias = arrays.bias.data();
    }
    const auto lora = weights.lora.find(p);
    if (lora == weights.lora.end()) return;
    const ExpertPair& pair = lora->second;
    part.scale = static_cast<float>(pair.scaling_of(expert).value());
    if (pair.a.has(expert)) arrays.a = grown(pair.a.at(expert), rank, layer.in_dim(p));
    if (pair.b.has(expert)) arrays.b = grown(pair.b.at(expert), layer.out_dim(p), rank);
    if (!arrays.a.empty()) part.a = arrays.a.data();
    if (!arrays.b.empty()) part.b = arrays.b.data();
  }

  Arrays arrays_[kernels::kProjections];
  kernels::ExpertData data_ = {};
};

}  // namespace

DeviceLayer::DeviceLayer(Device& device, const MoeLayer& layer, const MoeWeights& weights,
                         const ExpertWindow& window, int threads)
    : device_(device),
      layer_(layer),
      window_(window),
      shape_(shape_of(layer, weights.lora, window.count)) {
  check_weights(weights, layer);
  kernels::Failure failure;
  check_device(device_.api().layer_create(device_.context(), &shape_, &handle_, &failure), failure);
  try {
    load(weights, threads);
  } catch (...) {
    device_.api().layer_destroy(handle_);
    throw;
  }
}

DeviceLayer::~DeviceLayer() { device_.api().layer_destroy(handle_); }

int64_t DeviceLayer::rank(Projection p) const { return shape_.rank[index_of(p)]; }

void DeviceLayer::load(const MoeWeights& weights, int threads) {
  std::mutex one_at_a_time;
  parallel_for(window_.count, threads, [&](int64_t slot, int) {
    const HostExpert expert(layer_, weights, shape_, window_.first + slot);
    const std::lock_guard lock(one_at_a_time);
    kernels::Failure failure;
    check_device(device_.api().layer_load(handle_, slot, &expert.data(), &failure), failure);
  });
}

DeviceBatch::DeviceBatch(const DeviceLayer& layer, const Routing& routing, std::span<const float> x,
                         const kernels::Plan& plan)
    : layer_(layer),
      tokens_(routing.tokens),
      pairs_(routing.pairs()),
      deltas_(plan.keep_delta || plan.path == kernels::Path::naive) {
  check_routing(routing, layer.layer(), "routing");
  if (static_cast<int64_t>(x.size()) != tokens_ * layer.layer().width)
    throw Error("x", "does not hold the routing's tokens");
  std::vector<uint16_t> bits(x.size());
  cast_elements(DType::F32, DType::BF16, static_cast<int64_t>(x.size()),
                reinterpret_cast<const std::byte*>(x.data()),
                reinterpret_cast<std::byte*>(bits.data()));
  std::vector<int32_t> slots = routing.experts;
  for (int32_t& e : slots) {
    const int64_t slot = e - layer.window().first;
    e = e >= 0 && slot >= 0 && slot < layer.window().count ? static_cast<int32_t>(slot) : -1;
  }
  const kernels::BatchInput input = {tokens_, routing.top_k, bits.data(), slots.data(),
                                     routing.weights.data()};
  kernels::Failure failure;
  const kernels::Api& api = layer_.device().api();
  check_device(api.batch_create(layer_.handle(), &input, &plan, &handle_, &failure), failure);
}

DeviceBatch::~DeviceBatch() { layer_.device().api().batch_destroy(handle_); }

void DeviceBatch::run() {
  kernels::Failure failure;
  check_device(layer_.device().api().batch_run(handle_, &failure), failure);
}

std::vector<float> DeviceBatch::read(kernels::Stage stage, Projection p, int64_t rows,
                                     int64_t columns) const {
  std::vector<float> out(static_cast<size_t>(rows * columns));
  if (out.empty()) return out;
  kernels::Failure failure;
  const kernels::Api& api = layer_.device().api();
  check_device(api.batch_read(handle_, stage, index_of(p), out.data(), &failure), failure);
  return out;
}

std::vector<float> DeviceBatch::out() const {
  return read(kernels::Stage::out, Projection::down, tokens_, layer_.layer().width);
}

MoeStages<float> DeviceBatch::stages() const {
  const MoeLayer& layer = layer_.layer();
  MoeStages<float> out;
  for (const Projection p : layer.projections()) {
    ProjectionStages<float>& to = out.projections[p];
    to.base = read(kernels::Stage::base, p, pairs_, layer.out_dim(p));
    if (layer_.rank(p) == 0) continue;
    to.rank = read(kernels::Stage::rank, p, pairs_, layer_.rank(p));
    if (deltas_) to.delta = read(kernels::Stage::delta, p, pairs_, layer.out_dim(p));
  }
  out.input = read(kernels::Stage::input, Projection::up, pairs_, layer.width);
  out.hidden = read(kernels::Stage::hidden, Projection::down, pairs_, layer.intermediate);
  out.out = this->out();
  return out;
}

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

// Adds the stages of `part` of all `rows` rows, from row `first` on. Windows of experts and of
// tokens add up: rows of choices outside are zero.
void add_rows(const std::vector<float>& part, int64_t part_rows, int64_t first, int64_t rows,
              std::vector<float>& to) {
  if (part.empty()) return;
  const int64_t columns = static_cast<int64_t>(part.size()) / part_rows;
  to.resize(static_cast<size_t>(rows * columns));
  std::transform(part.begin(), part.end(), to.begin() + first * columns,
                 to.begin() + first * columns, std::plus<>());
}

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
  MoeStages<float> run(const DevicePlan& plan) {
    MoeStages<float> sum;
    for (int64_t first = 0; first < layer_.experts; first += plan.experts) {
      weights_did_not_fit = true;
      const DeviceLayer on_card(device_, layer_, weights_,
                                {first, std::min(plan.experts, layer_.experts - first)},
                                options_.threads);
      weights_did_not_fit = false;
      for (int64_t token = 0; token < routing_.tokens; token += plan.tokens)
        run_tokens(on_card, plan, token, sum);
    }
    return sum;
  }

  bool weights_did_not_fit = false;

 private:
  void run_tokens(const DeviceLayer& on_card, const DevicePlan& plan, int64_t token,
                  MoeStages<float>& sum) const {
    const int64_t count = std::min(plan.tokens, routing_.tokens - token);
    const auto rows = x_.subspan(static_cast<size_t>(token * layer_.width),
                                 static_cast<size_t>(count * layer_.width));
    const Routing chosen = routing_.part(token, count);
    DeviceBatch batch(on_card, chosen, rows,
                      {.path = plan.path, .keep_delta = options_.keep_delta});
    batch.run();
    const MoeStages<float> part = batch.stages();
    const auto add = [&](const std::vector<float>& from, std::vector<float>& to) {
      add_rows(from, chosen.pairs(), token * routing_.top_k, routing_.pairs(), to);
    };
    add(part.input, sum.input);
    add(part.hidden, sum.hidden);
    add_rows(part.out, count, token, routing_.tokens, sum.out);
    for (const auto& [p, stages] : part.projections) {
      add(stages.base, sum.projections[p].base);
      add(stages.rank, sum.projections[p].rank);
      add(stages.delta, sum.projections[p].delta);
    }
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

DeviceForward forward_device(Device& device, const MoeLayer& layer, const MoeWeights& weights,
                             const Routing& routing, std::span<const float> x,
                             const DeviceForwardOptions& options) {
  check_routing(routing, layer, "routing");
  DevicePlan plan = first_plan(layer, routing, options);
  PlannedRun run(device, layer, weights, routing, x, options);
  for (;;) {
    try {
      return {run.run(plan), plan};
    } catch (const DeviceMemoryError&) {
      if (!shrink(plan, run.weights_did_not_fit)) throw;
    }
  }
}

}  // namespace moelora
