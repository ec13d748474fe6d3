#include "lib/adapter/gate_up.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/adapter/adapter.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

ExpertPair half_of(const ExpertPair& pair, GateUpOrder order, int half) {
  ExpertPair out = pair;
  for (Tensor& part : out.b.parts)
    if (part.rank() != 0) part = gate_up_half(part, order, half);
  return out;
}

// gate and up of one layer, either of which may be absent as a whole.
struct Halves {
  const ExpertPair* gate = nullptr;
  const ExpertPair* up = nullptr;

  const ExpertPair& any() const { return gate != nullptr ? *gate : *up; }
  bool has(const ExpertPair* pair, int64_t expert) const {
    return pair != nullptr && pair->a.has(expert);
  }
};

// A and B of one expert's fused pair. `same_a`: both halves use gate's A.
std::pair<Tensor, Tensor> fuse_expert(const Halves& halves, int64_t e, GateUpOrder order,
                                      bool same_a) {
  const bool gate = halves.has(halves.gate, e), up = halves.has(halves.up, e);
  if (!gate && !up) return {};
  if (!gate || !up) {
    const ExpertPair& only = gate ? *halves.gate : *halves.up;
    const Tensor& b = only.b.at(e);
    const Tensor zero = Tensor::zeros(b.dtype(), b.shape());
    return {only.a.at(e), gate ? join_gate_up(b, zero, order) : join_gate_up(zero, b, order)};
  }
  const Tensor &a_gate = halves.gate->a.at(e), &a_up = halves.up->a.at(e);
  const Tensor &b_gate = halves.gate->b.at(e), &b_up = halves.up->b.at(e);
  if (same_a) return {a_gate, join_gate_up(b_gate, b_up, order)};
  const Tensor right = Tensor::zeros(b_gate.dtype(), {b_gate.dim(0), b_up.dim(1)});
  const Tensor left = Tensor::zeros(b_up.dtype(), {b_up.dim(0), b_gate.dim(1)});
  return {Tensor::concat(0, std::vector{a_gate, a_up}),
          join_gate_up(Tensor::concat(1, std::vector{b_gate, right}),
                       Tensor::concat(1, std::vector{left, b_up}), order)};
}

Scaling fused_scaling(const Halves& halves, int64_t e, bool same_a, int layer) {
  const bool gate = halves.has(halves.gate, e), up = halves.has(halves.up, e);
  if (!gate || !up) return (gate ? halves.gate : up ? halves.up : &halves.any())->scaling_of(e);
  const Scaling g = halves.gate->scaling_of(e), u = halves.up->scaling_of(e);
  if (g.value() != u.value())
    throw Error(fmt::format("layer {}, expert {}", layer, e),
                fmt::format("gate has the scale {} and up {}: one gate_up pair has one scale",
                            g.value(), u.value()),
                "convert to a layout with separate gate and up (peft-linear, stacked)");
  return same_a ? g : g.with_rank(g.rank + u.rank);
}

bool all_same_a(const Halves& halves, int64_t experts, int threads) {
  if (halves.gate == nullptr || halves.up == nullptr) return true;
  std::vector<std::pair<Tensor, Tensor>> both;
  const Factor &gate = halves.gate->a, &up = halves.up->a;
  const int64_t n = gate.shared && up.shared ? 1 : experts;
  for (int64_t e = 0; e < n; ++e)
    if (gate.has(e) && up.has(e)) both.emplace_back(gate.at(e), up.at(e));
  return all_identical(both, threads);
}

ExpertPair fuse_layer(const Halves& halves, int64_t experts, GateUpOrder order, int threads,
                      int layer) {
  const bool same_a = all_same_a(halves, experts, threads);
  const auto shared = [&](Factor ExpertPair::*side) {
    return (halves.gate == nullptr || (halves.gate->*side).shared) &&
           (halves.up == nullptr || (halves.up->*side).shared);
  };
  ExpertPair out;
  out.a.shared = shared(&ExpertPair::a);
  out.b.shared = shared(&ExpertPair::b);
  for (int64_t e = 0; e < experts; ++e) {
    auto [a, b] = fuse_expert(halves, e, order, same_a);
    if (e == 0 || !out.a.shared) out.a.parts.push_back(std::move(a));
    if (e == 0 || !out.b.shared) out.b.parts.push_back(std::move(b));
    out.scaling.push_back(fused_scaling(halves, e, same_a, layer));
  }
  out.merge_scaling();
  return out;
}

}  // namespace

Tensor gate_up_half(const Tensor& fused, GateUpOrder order, int half) {
  const int64_t rows = fused.dim(0) / 2;
  Shape shape = fused.shape();
  shape[0] = 2;
  shape.insert(shape.begin() + (order == GateUpOrder::halves ? 1 : 0), rows);
  return fused.reshape(shape).select(order == GateUpOrder::halves ? 0 : 1, half);
}

Tensor join_gate_up(const Tensor& gate, const Tensor& up, GateUpOrder order) {
  const Tensor both = Tensor::stack(std::vector{gate, up});
  Shape shape = gate.shape();
  shape[0] *= 2;
  return (order == GateUpOrder::halves ? both : both.transpose(0, 1)).reshape(shape);
}

void split_gate_up(Adapter& adapter) {
  std::map<ExpertKey, ExpertPair> out;
  for (auto& [key, pair] : adapter.experts) {
    if (key.projection != Projection::gate_up) {
      out.emplace(key, std::move(pair));
      continue;
    }
    if (!adapter.gate_up_order)
      throw Error(fmt::format("layer {} gate_up_proj", key.layer),
                  "whether gate and up rows are halves or interleaved depends on the model family, "
                  "which is not known",
                  {"name the base model with ", Option::base,
                   ", or say \"gate_up_order\" in a file for ", Option::model_spec});
    out.emplace(ExpertKey{key.layer, Projection::gate}, half_of(pair, *adapter.gate_up_order, 0));
    out.emplace(ExpertKey{key.layer, Projection::up}, half_of(pair, *adapter.gate_up_order, 1));
  }
  adapter.experts = std::move(out);
  adapter.gate_up_order.reset();
}

void fuse_gate_up(Adapter& adapter, GateUpOrder order, int threads) {
  if (adapter.has(Projection::gate_up) && adapter.gate_up_order != order) split_gate_up(adapter);
  std::map<int, Halves> layers;
  for (const auto& [key, pair] : adapter.experts) {
    if (key.projection == Projection::gate) layers[key.layer].gate = &pair;
    if (key.projection == Projection::up) layers[key.layer].up = &pair;
  }
  std::map<ExpertKey, ExpertPair> fused;
  for (const auto& [layer, halves] : layers)
    fused.emplace(ExpertKey{layer, Projection::gate_up},
                  fuse_layer(halves, adapter.expert_count, order, threads, layer));
  std::erase_if(adapter.experts, [](const auto& entry) {
    return entry.first.projection == Projection::gate || entry.first.projection == Projection::up;
  });
  adapter.experts.merge(fused);
  adapter.gate_up_order = order;
}

}  // namespace moelora
