#include "lib/numeric/moe_forward.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "lib/base/error.h"
#include "tests/numeric/made_layer.h"
#include "tests/numeric/merged_forward.h"

namespace moelora::test {
namespace {

std::vector<double> merged(const MadeLayer& made, const Routing& routing,
                           const std::vector<double>& x) {
  return merged_forward(made.layer, routing, x,
                        [&](int64_t e) { return merged_expert(made.layer, made.weights, e); });
}

std::vector<double> in_double(const std::vector<float>& values) {
  return std::vector<double>(values.begin(), values.end());
}

}  // namespace

TEST_CASE("The double forward equals plain loops over merged weights to 1e-12") {
  for (const LayerCase& c : ugly_cases()) {
    const MadeLayer made = made_layer(c);
    for (const int64_t tokens : {1, 7, 129}) {
      CAPTURE(c.name);
      CAPTURE(tokens);
      const Routing routing = made_routing(c, tokens);
      const std::vector<double> x = made_tokens(c, tokens);
      const std::vector<double> expected = merged(made, routing, x);
      const std::vector<double> y = forward_cpu<double>(made.layer, made.weights, routing, x).out;
      CHECK(relative_error(y, expected) <= 1e-12);
      const std::vector<float> x32(x.begin(), x.end());
      const auto y32 = forward_cpu<float>(made.layer, made.weights, routing, x32).out;
      CHECK(relative_error(in_double(y32), expected) <= 2e-6);
    }
  }
}

TEST_CASE("LoRA, the limit and the scale all count") {
  // A case that would pass with any of them ignored proves nothing.
  LayerCase c = ugly_cases()[2];
  const MadeLayer made = made_layer(c);
  const Routing routing = made_routing(c, 7);
  const std::vector<double> x = made_tokens(c, 7);
  const auto y = forward_cpu<double>(made.layer, made.weights, routing, x).out;
  const auto differs = [&](const MoeLayer& layer, const MoeWeights& weights) {
    return relative_error(forward_cpu<double>(layer, weights, routing, x).out, y) > 0.01;
  };
  for (const Projection p : {Projection::gate, Projection::up, Projection::down}) {
    MoeWeights without = made.weights, rescaled = made.weights;
    without.lora.erase(p);
    CHECK(differs(made.layer, without));
    rescaled.lora[p].scaling[0].alpha *= 1.5;
    CHECK(differs(made.layer, rescaled));
    MoeWeights bare = made.weights;
    bare.base.biases.erase(p);
    CHECK(differs(made.layer, bare));
  }
  MoeLayer no_limit = made.layer, other_alpha = made.layer;
  no_limit.limit = 7;
  CHECK(differs(no_limit, made.weights));
  other_alpha.alpha = 1;
  CHECK(differs(other_alpha, made.weights));
}

TEST_CASE("Threads change no bit") {
  const LayerCase c = ugly_cases()[3];
  const MadeLayer made = made_layer(c);
  const Routing routing = made_routing(c, 33);
  const std::vector<double> x = made_tokens(c, 33);
  const auto one = forward_cpu<double>(made.layer, made.weights, routing, x, 1);
  const auto four = forward_cpu<double>(made.layer, made.weights, routing, x, 4);
  CHECK(four.out == one.out);
  CHECK(four.hidden == one.hidden);
}

TEST_CASE("The stages are what their names say") {
  LayerCase c;
  c.biases = true;
  const MadeLayer made = made_layer(c);
  const Routing routing = made_routing(c, 4);
  const std::vector<double> x = made_tokens(c, 4);
  const MoeStages<double> stages = forward_cpu<double>(made.layer, made.weights, routing, x);

  const auto pairs = static_cast<size_t>(routing.pairs());
  CHECK(stages.input.size() == pairs * 96);
  CHECK(stages.hidden.size() == pairs * 40);
  CHECK(stages.out.size() == size_t{4} * 96);
  const ProjectionStages<double>& up = stages.projections.at(Projection::up);
  CHECK(up.base.size() == pairs * 40);
  CHECK(up.rank.size() == pairs * 3);

  // Without the delta the base is what a layer without LoRA has, and the delta is what is missing.
  MoeWeights bare = made.weights, zero = made.weights;
  bare.lora.clear();
  const MoeStages<double> of_base = forward_cpu<double>(made.layer, bare, routing, x);
  CHECK(of_base.projections.at(Projection::up).base == up.base);
  CHECK(of_base.projections.at(Projection::up).delta.empty());
  zero.base.biases.clear();
  for (auto& [projection, weights] : zero.base.weights)
    for (Tensor& weight : weights) weight = Tensor::zeros(DType::BF16, weight.shape());
  const MoeStages<double> of_delta = forward_cpu<double>(made.layer, zero, routing, x);
  CHECK(of_delta.projections.at(Projection::up).delta == up.delta);
  const std::vector<double>& none = of_delta.projections.at(Projection::up).base;
  CHECK(std::count(none.begin(), none.end(), 0.0) == static_cast<int64_t>(none.size()));
}

TEST_CASE("A choice of -1 adds nothing, and a wrong routing is refused") {
  const LayerCase c;
  const MadeLayer made = made_layer(c);
  Routing routing = made_routing(c, 2);
  const std::vector<double> x = made_tokens(c, 2);
  for (size_t p = 0; p < 3; ++p) routing.experts[p] = -1;
  const auto y = forward_cpu<double>(made.layer, made.weights, routing, x).out;
  for (size_t i = 0; i < 96; ++i) CHECK(y[i] == 0);
  CHECK(relative_error(y, merged(made, routing, x)) <= 1e-12);

  const auto refused = [&](const Routing& r) {
    CHECK_THROWS_AS(forward_cpu<double>(made.layer, made.weights, r, x), Error);
  };
  routing.experts[0] = 5;
  refused(routing);
  routing.experts[0] = -2;
  refused(routing);
  routing = made_routing(c, 2);
  routing.weights.pop_back();
  refused(routing);
  refused(made_routing(c, 3));
}

TEST_CASE("An expert without LoRA and experts of different ranks are as their factors say") {
  LayerCase c;
  MadeLayer made = made_layer(c);
  ExpertPair& up = made.weights.lora[Projection::up];
  up.a.parts[1] = up.b.parts[1] = Tensor();
  up.a.parts[2] = up.a.parts[2].slice(0, 0, 1);
  up.b.parts[2] = up.b.parts[2].slice(1, 0, 1);
  up.scaling = std::vector<Scaling>(5, up.scaling[0]);
  up.scaling[2] = {1, 0.5, false};
  const Routing routing = made_routing(c, 9);
  const std::vector<double> x = made_tokens(c, 9);
  CHECK(relative_error(forward_cpu<double>(made.layer, made.weights, routing, x).out,
                       merged(made, routing, x)) <= 1e-12);
}

}  // namespace moelora::test
