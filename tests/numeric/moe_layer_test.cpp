#include "lib/numeric/moe_layer.h"

#include <doctest/doctest.h>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/model/base_model.h"
#include "tests/model/catalogue.h"
#include "tests/numeric/made_layer.h"

namespace moelora::test {

TEST_CASE("Every family's experts are a layer that can be computed") {
  for (const std::string& family : catalogue_families()) {
    CAPTURE(family);
    const BaseModel base = open_base(catalogue_entry(family).config);
    const MoeLayer layer = moe_layer(base.spec, base.config);
    CHECK(layer.experts == base.spec.experts);
    CHECK(layer.width == base.spec.expert_in);
    CHECK(layer.gated == (family != "nemotron_h"));
    CHECK((layer.activation == Activation::gpt_oss_swiglu) == (family == "gpt_oss"));
    CHECK(layer.limit == (family == "gpt_oss" ? 7 : std::numeric_limits<double>::infinity()));
    CHECK((layer.router_weight == RouterWeight::input) == (family == "llama4_text"));
  }
}

TEST_CASE("The limit is the config's, and an unknown activation is refused") {
  BaseModel base = open_base(catalogue_entry("gpt_oss").config);
  base.config.set("swiglu_limit", 5.5);
  CHECK(moe_layer(base.spec, base.config).limit == 5.5);
  base.spec.activation = "softplus";
  try {
    moe_layer(base.spec, base.config);
    FAIL("expected an Error");
  } catch (const Error& error) {
    CHECK(error.text() == "the experts' activation softplus is not known here");
  }
}

TEST_CASE("Pairs are grouped by expert, both in order, without choices of -1") {
  const Routing routing{3, 2, {4, 1, -1, 4, 1, 0}, std::vector<float>(6, 0.5F)};
  const std::vector<ExpertGroup> groups = group_by_expert(routing);
  REQUIRE(groups.size() == 3);
  CHECK(groups[0].expert == 0);
  CHECK(groups[0].pairs == std::vector<int64_t>{5});
  CHECK(groups[1].pairs == std::vector<int64_t>{1, 4});
  CHECK(groups[2].expert == 4);
  CHECK(groups[2].pairs == std::vector<int64_t>{0, 3});
}

TEST_CASE("Weights of other shapes than the layer's are refused, by place") {
  LayerCase c;
  c.biases = true;
  const MadeLayer made = made_layer(c);
  MoeWeights weights = made.weights;
  const auto text = [&] {
    try {
      check_weights(weights, made.layer);
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  CHECK(text().empty());
  ExpertPair& down = weights.lora[Projection::down];
  SUBCASE("a base weight") {
    weights.base.weights[Projection::up][4] = weights.base.weight(Projection::down, 4);
    CHECK(text() == "expert 4 up_proj: the base weight has shape [96, 40], expected [40, 96]");
  }
  SUBCASE("no base weights") {
    weights.base.weights.erase(Projection::gate);
    CHECK(text() == "expert 0 gate_proj: has no base weight");
  }
  SUBCASE("a bias") {
    weights.base.biases[Projection::up][1] = *weights.base.bias(Projection::down, 1);
    CHECK(text() == "expert 1 up_proj: the bias has shape [96], expected [40]");
  }
  SUBCASE("a rank that the other side does not have") {
    down.b.parts[2] = down.b.parts[2].slice(1, 0, 2);
    CHECK(text() == "expert 2 down_proj: lora_B has shape [96, 2], expected [96, 3]");
  }
  SUBCASE("a factor of another width") {
    down.a.parts[2] = down.a.parts[2].slice(1, 0, 39);
    CHECK(text() == "expert 2 down_proj: lora_A has shape [3, 39], expected [3, 40]");
  }
  SUBCASE("factors of too few experts") {
    down.a.parts.pop_back();
    CHECK(text() == "expert 0 down_proj: LoRA has factors of 4 experts, expected 5");
  }
}

}  // namespace moelora::test
