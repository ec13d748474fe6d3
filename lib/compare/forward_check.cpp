#include "lib/compare/forward_check.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <optional>
#include <set>

#include "lib/adapter/gate_up.h"
#include "lib/adapter/random_source.h"
#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/base/parallel.h"
#include "lib/base/progress_meter.h"
#include "lib/io/evaluate.h"
#include "lib/numeric/base_weights.h"
#include "lib/numeric/device_forward.h"
#include "lib/numeric/expert_linear.h"

namespace moelora {
namespace {

using Values = std::vector<double>;

constexpr double kFloat = 0x1p-23, kBf16 = 0x1p-8;

// Rounding to a type: relative, and the half of its smallest step.
struct Rounding {
  double relative = 0, absolute = 0;
};

Rounding rounding_to(DType dtype) {
  switch (dtype) {
    case DType::BF16:
      return {0x1p-8, 0x1p-134};
    case DType::F16:
      return {0x1p-11, 0x1p-25};
    case DType::F32:
      return {0x1p-24, 0x1p-150};
    default:
      return {};
  }
}

void widen(Rounding& to, const Rounding& by) {
  to.relative += by.relative;
  to.absolute += by.absolute;
}

// What was rounded between the source's factors of one expert and those an implementation used.
Rounding rounding_of(const ExpertPair& packed, const ExpertPair* source, int64_t expert,
                     bool bf16) {
  Rounding out;
  for (const Factor ExpertPair::*side : {&ExpertPair::a, &ExpertPair::b}) {
    const Factor& factor = packed.*side;
    if (!factor.has(expert)) continue;
    const DType dtype = factor.at(expert).dtype();
    const bool known = source != nullptr && (source->*side).has(expert);
    const bool same = known && (source->*side).at(expert).dtype() == dtype &&
                      packed.scaling_of(expert).value() == source->scaling_of(expert).value();
    Rounding all;
    if (!same) widen(all, rounding_to(dtype));
    if (bf16 && dtype != DType::BF16) widen(all, rounding_to(DType::BF16));
    out = {std::max(out.relative, all.relative), std::max(out.absolute, all.absolute)};
  }
  return out;
}

double size_of(const double* row, int64_t count) {
  double out = 0;
  for (int64_t i = 0; i < count; ++i) out += std::abs(row[i]);
  return out;
}

double finite(double ratio) { return std::isnan(ratio) ? kBeyond : std::min(ratio, kBeyond); }

class ProjectionCheck {
 public:
  ProjectionCheck(const DeltaCheck& check, const std::vector<ExpertGroup>& groups, Projection p,
                  const std::vector<float>& in)
      : check_(check),
        groups_(groups),
        p_(p),
        in_(in.begin(), in.end()),
        pairs_(check.routing.pairs()),
        exact_(static_cast<size_t>(pairs_ * check.layer.out_dim(p))),
        bound_(exact_.size()) {
    for (const ExpertGroup& group : groups_) rounding_.push_back(rounding_in(group.expert));
    make_exact();
    make_bound();
  }

  // `found` is empty where the packed adapter has no LoRA on the projection.
  void check(const std::vector<float>& found, std::vector<DeltaError>& out) const {
    const size_t first = out.size();
    out.resize(first + groups_.size());
    for_groups([&](size_t i) {
      DeltaError error = compare(found, groups_[i]);
      error.within =
          error.worst <= 1 && (rounding_[i].relative == 0 || error.relative <= kRoundedDelta);
      out[first + i] = error;
    });
  }

 private:
  const ExpertPair* pair_of(const MoeWeights& weights) const {
    const auto found = weights.lora.find(p_);
    return found == weights.lora.end() ? nullptr : &found->second;
  }

  Rounding rounding_in(int64_t expert) const {
    const ExpertPair* packed = pair_of(check_.packed);
    if (packed == nullptr) return {};
    return rounding_of(*packed, pair_of(check_.source), expert, check_.rounding.bf16);
  }

  ExpertLinear<double> linear(const MoeWeights& weights) const {
    return {weights, groups_, p_, pairs_, check_.threads};
  }

  void make_exact() {
    const ExpertLinear<double> source = linear(check_.source);
    if (source.rank() > 0) exact_ = source.delta(source.rank(in_).value).value;
  }

  void make_bound() {
    const ExpertLinear<double> packed = linear(check_.packed);
    if (packed.rank() == 0) return;
    const int64_t rank = packed.rank(), length = check_.layer.in_dim(p_);
    const Evaluated<double> z = packed.rank(in_, true);
    Values z_error = z.magnitude, tail(bound_.size());
    const Values after = packed.delta(z.value, true).magnitude;
    for_rows([&](size_t group, int64_t pair) {
      const Rounding& rounding = rounding_[group];
      const auto terms = static_cast<double>(length) * kFloat + rounding.relative;
      const double least = rounding.absolute * size_of(in_.data() + pair * length, length);
      for (double *at = z_error.data() + pair * rank, *end = at + rank; at < end; ++at)
        *at = *at * terms + least;
      make_tail(group, pair, rank, z.value, after, tail);
    });
    bound_ = packed.delta(z_error, true).magnitude;
    const int64_t out = check_.layer.out_dim(p_);
    for_rows([&](size_t, int64_t pair) {
      for (auto i = static_cast<size_t>(pair * out); i < static_cast<size_t>((pair + 1) * out); ++i)
        bound_[i] += tail[i];
    });
  }

  // What B's own rounding, the sum over the rank and a BF16 z add.
  void make_tail(size_t group, int64_t pair, int64_t rank, const Values& z, const Values& after,
                 Values& tail) const {
    const int64_t out = check_.layer.out_dim(p_);
    const Rounding& rounding = rounding_[group];
    const double scale =
        std::abs(pair_of(check_.packed)->scaling_of(groups_[group].expert).value());
    const double terms =
        static_cast<double>(rank) * kFloat + rounding.relative + (check_.rounding.bf16 ? kBf16 : 0);
    const double least = rounding.absolute * scale * size_of(z.data() + pair * rank, rank);
    for (int64_t i = pair * out; i < (pair + 1) * out; ++i)
      tail[static_cast<size_t>(i)] = after[static_cast<size_t>(i)] * terms + least;
  }

  // Of different groups at once: no two have a row in common.
  template <class Group>
  void for_groups(const Group& each) const {
    parallel_for(static_cast<int64_t>(groups_.size()), check_.threads,
                 [&](int64_t group, int) { each(static_cast<size_t>(group)); });
  }

  template <class Row>
  void for_rows(const Row& row) const {
    for_groups([&](size_t group) {
      for (const int64_t pair : groups_[group].pairs) row(group, pair);
    });
  }

  DeltaError compare(const std::vector<float>& found, const ExpertGroup& group) const {
    const int64_t columns = check_.layer.out_dim(p_);
    DeltaError out{p_, group.expert, 0, 0, false};
    double difference = 0, size = 0;
    for (const int64_t pair : group.pairs) {
      for (auto i = static_cast<size_t>(pair * columns);
           i < static_cast<size_t>((pair + 1) * columns); ++i) {
        const double value = found.empty() ? 0 : double{found[i]};
        if (std::isnan(value) && std::isnan(exact_[i])) continue;  // of what came in
        const double error = std::abs(value - exact_[i]);
        difference += error * error;
        size += exact_[i] * exact_[i];
        if (error != 0) out.worst = std::max(out.worst, finite(error / bound_[i]));
      }
    }
    if (difference != 0) out.relative = finite(size > 0 ? std::sqrt(difference / size) : 1);
    return out;
  }

  const DeltaCheck& check_;
  const std::vector<ExpertGroup>& groups_;
  Projection p_;
  Values in_;
  int64_t pairs_;
  Values exact_, bound_;
  std::vector<Rounding> rounding_;  // one per group
};

}  // namespace

std::vector<DeltaError> check_deltas(const DeltaCheck& check, const MoeStages<float>& found) {
  const std::vector<ExpertGroup> groups = group_by_expert(check.routing);
  std::vector<DeltaError> out;
  for (const Projection p : check.layer.projections()) {
    if (check.packed.lora.count(p) == 0 && check.source.lora.count(p) == 0) continue;
    const std::vector<float>& in = p == Projection::down ? found.hidden : found.input;
    const auto stages = found.projections.find(p);
    ProjectionCheck(check, groups, p, in)
        .check(stages == found.projections.end() ? std::vector<float>() : stages->second.delta,
               out);
  }
  return out;
}

// ---- both adapters, layer by layer ----

namespace {

// A layer with its deltas apart, where the user wants it; `device`: null for the CPU.
MoeStages<float> stages_of(Device* device, const DeltaCheck& check, const std::vector<float>& x,
                           StageReport& report) {
  if (device == nullptr)
    return forward_cpu<float>(check.layer, check.packed, check.routing, x, check.threads,
                              Until::last_delta);
  DeviceForward found = forward_device(*device, check.layer, check.packed, check.routing, x,
                                       {.keep_delta = true, .threads = check.threads});
  report.device = fmt::format("{} ({})", device->description(), to_string(found.plan));
  return std::move(found.stages);
}

constexpr uint64_t kSeed = 0;  // of tokens, and of a base that stands in

// The base of one layer after the other.
class Bases {
 public:
  Bases(const ForwardBase& given, const MoeLayer& layer) : given_(given) {
    if (given.tensors == nullptr) stand_in_ = stand_in(layer);
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

  static BaseWeights stand_in(const MoeLayer& layer) {
    BaseWeights out =
        synthetic_base({1, layer.width, layer.intermediate, layer.gated, false, kSeed, 0});
    for (auto& [projection, weights] : out.weights)
      weights.assign(static_cast<size_t>(layer.experts), held(weights[0]));
    return out;
  }

  const ForwardBase& given_;
  BaseWeights stand_in_;
};

constexpr int64_t kPairsPerExpert = 4;

// Experts in turn, so that all are chosen kPairsPerExpert times, or once more.
Routing even_routing(int64_t experts) {
  Routing out;
  out.top_k = std::min<int64_t>(experts, 8);
  out.tokens = (experts * kPairsPerExpert + out.top_k - 1) / out.top_k;
  for (int64_t pair = 0; pair < out.pairs(); ++pair)
    out.experts.push_back(static_cast<int32_t>(pair % experts));
  out.weights.assign(out.experts.size(), 1.0F / static_cast<float>(out.top_k));
  return out;
}

std::vector<float> random_tokens(int64_t tokens, int64_t width, int layer) {
  const SourcePtr numbers =
      random_source(kSeed, fmt::format("tokens.{}", layer), tokens * width, std::sqrt(3.0));
  const std::vector<double> values =
      read_double(Tensor(cast_source(numbers, DType::BF16), {tokens * width}));
  return {values.begin(), values.end()};
}

// A layer's factors in memory, read together: experts of a stacked tensor lie between each other,
// so that reading one reads the stripe of all, and each is needed several times.
LayerLora in_memory(LayerLora lora, int threads) {
  std::vector<Tensor*> parts;
  for (auto& [projection, pair] : lora)
    for (Factor* factor : {&pair.a, &pair.b})
      for (Tensor& part : factor->parts)
        if (part.rank() != 0) parts.push_back(&part);
  std::vector<std::vector<std::byte>> bytes;
  std::vector<Place> places;
  for (const Tensor* part : parts) {
    places.push_back({bytes.size(), 0});
    bytes.emplace_back(part->bytes());
  }
  const std::vector<const Tensor*> read(parts.begin(), parts.end());
  evaluate_tensors(read, places, {.threads = threads, .digests = false},
                   [&](size_t part, uint64_t offset, std::span<const std::byte> run) {
                     std::copy(run.begin(), run.end(),
                               bytes[part].begin() + static_cast<std::ptrdiff_t>(offset));
                   });
  for (size_t i = 0; i < parts.size(); ++i)
    *parts[i] = Tensor(std::make_shared<MemorySource>(parts[i]->dtype(), std::move(bytes[i])),
                       parts[i]->shape());
  return lora;
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
  const Bases bases(base, layer);
  const Routing routing = even_routing(layer.experts);
  Device* const device = options.where.device.get();
  StageReport report;
  report.device = device == nullptr ? "CPU, float" : device->description();
  report.why_cpu = options.where.reason;
  report.experts = layer.experts;
  report.tokens = routing.tokens;
  const std::set<int> layers = layers_of(one, other);
  const uint64_t bytes = bytes_of(layer);
  ProgressMeter progress("computing", bytes * layers.size(), options.job);
  for (const int at : layers) {
    MoeWeights mine{bases.of(at), layer_lora(one, at)};
    MoeWeights theirs{mine.base, layer_lora(other, at)};
    check_weights(theirs, layer);
    mine.lora = in_memory(std::move(mine.lora), options.threads);
    theirs.lora = in_memory(std::move(theirs.lora), options.threads);
    const std::vector<float> x = random_tokens(routing.tokens, layer.width, at);
    const DeltaCheck check{layer, mine, theirs, routing, {device != nullptr}, options.threads};
    const MoeStages<float> found = stages_of(device, check, x, report);
    for (const DeltaError& error : check_deltas(check, found)) note(error, at, report);
    report.base = bases.text(mine.base);
    ++report.layers;
    progress.add(bytes);
  }
  return report;
}

}  // namespace moelora
