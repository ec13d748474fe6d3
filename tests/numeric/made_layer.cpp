#include "tests/numeric/made_layer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "lib/adapter/random_source.h"
#include "lib/base/cast.h"
#include "lib/base/parallel.h"

namespace moelora::test {
namespace {

Tensor random_bf16(uint64_t seed, const std::string& name, const Shape& shape, double bound) {
  int64_t elements = 1;
  for (const int64_t n : shape) elements *= n;
  return Tensor(cast_source(random_source(seed, name, elements, bound), DType::BF16), shape);
}

Factor made_factor(const LayerCase& c, const std::string& name, uint64_t seed, const Shape& shape,
                   bool shared) {
  Factor out;
  out.shared = shared;
  const double bound = std::sqrt(3.0 / static_cast<double>(shape[1]));
  for (int64_t e = 0; e < (shared ? 1 : c.experts); ++e)
    out.parts.push_back(random_bf16(seed, name + std::to_string(e), shape, bound));
  return out;
}

void hold(std::vector<Tensor>& tensors) {
  parallel_for(static_cast<int64_t>(tensors.size()), 0, [&](int64_t i, int) {
    Tensor& tensor = tensors[static_cast<size_t>(i)];
    tensor = Tensor(std::make_shared<MemorySource>(tensor.dtype(), tensor.read()), tensor.shape());
  });
}

}  // namespace

MadeLayer held_in_memory(const MadeLayer& made) {
  MadeLayer out = made;
  for (auto& entry : out.weights.base.weights) hold(entry.second);
  for (auto& entry : out.weights.lora) {
    hold(entry.second.a.parts);
    hold(entry.second.b.parts);
  }
  return out;
}

ExpertPair made_pair(const LayerCase& c, Projection p, uint64_t seed, bool shared_a,
                     bool shared_b) {
  const bool down = p == Projection::down;
  const int64_t rank = down ? c.down_rank : c.rank;
  const int64_t in = down ? c.intermediate : c.width, out = down ? c.width : c.intermediate;
  const std::string name(projection_name(p));
  return {made_factor(c, name + ".A", seed, {rank, in}, shared_a),
          made_factor(c, name + ".B", seed, {out, rank}, shared_b),
          {Scaling{rank, 2.0 * static_cast<double>(rank), false}}};
}

MadeLayer made_layer(const LayerCase& c, uint64_t seed) {
  MadeLayer out;
  out.layer = c.layer;
  out.layer.experts = c.experts;
  out.layer.width = c.width;
  out.layer.intermediate = c.intermediate;
  out.weights.base =
      synthetic_base({c.experts, c.width, c.intermediate, c.layer.gated, c.biases, seed, 0});
  for (const Projection p : out.layer.inner())
    if (c.rank > 0) out.weights.lora[p] = made_pair(c, p, seed, c.shared_outer, false);
  if (c.down_rank > 0)
    out.weights.lora[Projection::down] =
        made_pair(c, Projection::down, seed, false, c.shared_outer);
  return out;
}

Adapter made_adapter(const LayerCase& c, int layers, uint64_t seed) {
  Adapter out;
  out.expert_count = c.experts;
  for (int layer = 0; layer < layers; ++layer) {
    const MadeLayer made = made_layer(c, seed + static_cast<uint64_t>(layer));
    for (const auto& [projection, pair] : made.weights.lora)
      out.experts[{layer, projection}] = pair;
  }
  return out;
}

Routing made_routing(const LayerCase& c, int64_t tokens, uint64_t seed) {
  const std::vector<double> scores =
      read_double(random_bf16(seed, "scores", {tokens, c.experts}, 1.0));
  Routing out{tokens, c.top_k, {}, {}};
  std::vector<int32_t> order(static_cast<size_t>(c.experts));
  for (int64_t t = 0; t < tokens; ++t) {
    std::iota(order.begin(), order.end(), 0);
    const double* score = scores.data() + t * c.experts;
    std::stable_sort(order.begin(), order.end(), [&](int a, int b) { return score[a] > score[b]; });
    for (int64_t k = 0; k < c.top_k; ++k) {
      out.experts.push_back(order[static_cast<size_t>(k)]);
      out.weights.push_back(std::ldexp(1.0F, -1 - static_cast<int>(std::min(k, c.top_k - 2))));
    }
  }
  return out;
}

std::vector<double> made_tokens(const LayerCase& c, int64_t tokens, uint64_t seed) {
  return read_double(random_bf16(seed, "tokens", {tokens, c.width}, std::sqrt(3.0)));
}

LayerCase gpt_oss_20b() {
  LayerCase c;
  c.name = "gpt-oss-20b";
  c.experts = 32, c.top_k = 4, c.width = 2880, c.intermediate = 2880;
  c.rank = c.down_rank = 32;
  c.biases = true;
  c.layer.activation = Activation::gpt_oss_swiglu;
  c.layer.limit = 7;
  return c;
}

LayerCase qwen3_30b() {
  LayerCase c;
  c.name = "Qwen3-30B-A3B";
  c.experts = 128, c.top_k = 8, c.width = 2048, c.intermediate = 768;
  c.rank = c.down_rank = 16;
  return c;
}

std::vector<LayerCase> ugly_cases() {
  std::vector<LayerCase> out;
  const auto add = [&](std::string name) -> LayerCase& {
    out.push_back({});
    out.back().name = std::move(name);
    return out.back();
  };
  add("silu");
  add("silu, shared outer").shared_outer = true;
  LayerCase& oss = add("gpt-oss, biases, a tight limit");
  oss.biases = true;
  oss.layer.activation = Activation::gpt_oss_swiglu;
  oss.layer.limit = 0.75;
  LayerCase& outer = add("gpt-oss, biases, shared outer");
  outer = oss;
  outer.name = "gpt-oss, biases, shared outer";
  outer.shared_outer = true;
  add("gelu").layer.activation = Activation::gelu;
  add("tanh gelu").layer.activation = Activation::gelu_tanh;
  LayerCase& relu = add("relu2, not gated");
  relu.layer.activation = Activation::relu2;
  relu.layer.gated = false;
  LayerCase& input = add("router weighs the input, shared outer");
  input.layer.router_weight = RouterWeight::input;
  input.shared_outer = true;
  add("routed scaling").layer.routed_scaling = 2.5;
  LayerCase& odd = add("odd sizes, other ranks");
  odd.width = 35;
  odd.intermediate = 27;
  odd.rank = 5;
  odd.down_rank = 1;
  add("no LoRA on down").down_rank = 0;
  LayerCase& bare = add("no LoRA");
  bare.rank = bare.down_rank = 0;
  return out;
}

double relative_error(const std::vector<double>& found, const std::vector<double>& expected) {
  if (found.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double difference = 0, size = 0;
  for (size_t i = 0; i < found.size(); ++i) {
    difference += (found[i] - expected[i]) * (found[i] - expected[i]);
    size += expected[i] * expected[i];
  }
  const double error = std::sqrt(difference / (size > 0 ? size : 1));
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error;
}

}  // namespace moelora::test
