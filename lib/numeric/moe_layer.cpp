#include "lib/numeric/moe_layer.h"

#include <fmt/core.h>

#include "lib/adapter/gate_up.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

double number(const Json& config, std::string_view key, double otherwise) {
  const Json* found = config.find(key);
  return found != nullptr && found->is_number() ? found->as_double() : otherwise;
}

struct Place {
  Projection projection;
  int64_t expert;
};

std::string to_string(const Place& place) {
  return fmt::format("expert {} {}", place.expert, projection_name(place.projection));
}

void check_shape(const Place& place, std::string_view what, const Tensor& tensor,
                 const Shape& expected) {
  if (tensor.shape() == expected) return;
  throw Error(to_string(place),
              fmt::format("{} has shape {}, expected {}", what, moelora::to_string(tensor.shape()),
                          moelora::to_string(expected)));
}

void check_pair(const Place& place, const ExpertPair& pair, const MoeLayer& layer) {
  for (const Factor* factor : {&pair.a, &pair.b}) {
    const size_t experts = factor->shared ? 1 : static_cast<size_t>(layer.experts);
    if (factor->parts.size() != experts)
      throw Error(to_string(place), fmt::format("LoRA has factors of {} experts, expected {}",
                                                factor->parts.size(), experts));
  }
  const int64_t e = place.expert, in = layer.in_dim(place.projection);
  int64_t rank = pair.b.has(e) ? pair.b.at(e).shape().back() : 0;
  if (pair.a.has(e)) {
    rank = pair.a.at(e).dim(0);
    check_shape(place, "lora_A", pair.a.at(e), {rank, in});
  }
  if (pair.b.has(e))
    check_shape(place, "lora_B", pair.b.at(e), {layer.out_dim(place.projection), rank});
}

}  // namespace

std::optional<Activation> activation_from_name(std::string_view name) {
  static const std::map<std::string_view, Activation> known = {
      {"silu", Activation::silu},           {"swish", Activation::silu},
      {"gelu", Activation::gelu},           {"gelu_new", Activation::gelu_tanh},
      {"gelu_tanh", Activation::gelu_tanh}, {"gelu_pytorch_tanh", Activation::gelu_tanh},
      {"relu2", Activation::relu2},         {"gpt_oss_swiglu", Activation::gpt_oss_swiglu}};
  const auto found = known.find(name);
  return found == known.end() ? std::nullopt : std::optional(found->second);
}

std::vector<Projection> MoeLayer::inner() const {
  if (gated) return {Projection::gate, Projection::up};
  return {Projection::up};
}

std::vector<Projection> MoeLayer::projections() const {
  std::vector<Projection> out = inner();
  out.push_back(Projection::down);
  return out;
}

MoeLayer moe_layer(const ModelSpec& spec, const Json& config) {
  const auto activation = activation_from_name(spec.activation);
  if (!activation)
    throw Error("config.json",
                fmt::format("the experts' activation {} is not known here", spec.activation));
  MoeLayer out;
  out.experts = spec.experts;
  out.width = spec.expert_in;
  out.intermediate = spec.intermediate;
  out.gated = spec.gated;
  out.activation = *activation;
  if (out.activation == Activation::gpt_oss_swiglu) {
    out.alpha = number(config, "swiglu_alpha", out.alpha);
    out.limit = number(config, "swiglu_limit", 7.0);
  }
  if (spec.family == "llama4") out.router_weight = RouterWeight::input;
  return out;
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

LayerLora layer_lora(const Adapter& adapter, int layer) {
  LayerLora out;
  for (const Projection p : {Projection::gate, Projection::up, Projection::down}) {
    const auto found = adapter.experts.find({layer, p});
    if (found != adapter.experts.end()) out[p] = found->second;
  }
  return out;
}

void check_weights(const MoeWeights& weights, const MoeLayer& layer) {
  for (const Projection p : layer.projections()) {
    const auto base = weights.base.weights.find(p);
    const auto lora = weights.lora.find(p);
    for (int64_t e = 0; e < layer.experts; ++e) {
      const Place place{p, e};
      if (base == weights.base.weights.end() ||
          static_cast<int64_t>(base->second.size()) != layer.experts)
        throw Error(to_string(place), "has no base weight");
      check_shape(place, "the base weight", weights.base.weight(p, e),
                  {layer.out_dim(p), layer.in_dim(p)});
      if (const Tensor* bias = weights.base.bias(p, e))
        check_shape(place, "the bias", *bias, {layer.out_dim(p)});
      if (lora != weights.lora.end()) check_pair(place, lora->second, layer);
    }
  }
}

Routing Routing::part(int64_t first, int64_t count) const {
  const auto cut = [&](const auto& values) {
    const auto begin = values.begin() + first * top_k;
    return std::vector(begin, begin + count * top_k);
  };
  return {count, top_k, cut(experts), cut(weights)};
}

void check_routing(const Routing& routing, const MoeLayer& layer, std::string_view where) {
  const auto pairs = static_cast<size_t>(routing.pairs());
  if (routing.experts.size() != pairs || routing.weights.size() != pairs) {
    throw Error(
        std::string(where),
        fmt::format("has {} experts and {} weights, expected {} tokens x {} choices",
                    routing.experts.size(), routing.weights.size(), routing.tokens, routing.top_k));
  }
  for (size_t p = 0; p < pairs; ++p) {
    if (routing.experts[p] >= -1 && routing.experts[p] < layer.experts) continue;
    throw Error(std::string(where), fmt::format("choice {} is expert {}, expected -1 to {}", p,
                                                routing.experts[p], layer.experts - 1));
  }
}

std::vector<ExpertGroup> group_by_expert(const Routing& routing) {
  std::map<int32_t, std::vector<int64_t>> pairs;
  for (int64_t p = 0; p < routing.pairs(); ++p) {
    const int32_t expert = routing.experts[static_cast<size_t>(p)];
    if (expert >= 0) pairs[expert].push_back(p);
  }
  std::vector<ExpertGroup> out;
  for (auto& [expert, rows] : pairs) out.push_back({expert, std::move(rows)});
  return out;
}

}  // namespace moelora
