#include <doctest/doctest.h>

#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kExperts = "model.layers.0.mlp.experts";

// Pairs below the experts of layer 0.
MadeAdapter pairs(const std::vector<std::pair<std::string, std::pair<Shape, Shape>>>& rows) {
  MadeAdapter made;
  for (const auto& [rest, shapes] : rows)
    made.pair(rest.empty() ? kExperts : kExperts + "." + rest, shapes.first, shapes.second);
  return made;
}

std::string detected(const MadeAdapter& made) {
  const std::vector<ExpertTensor> experts = expert_tensors(made.tensors());
  const Layout* layout = detect_layout(experts);
  return layout == nullptr ? "none" : std::string(layout->id);
}

std::string fault(const MadeAdapter& made) {
  return error_text([&] { detected(made); });
}

std::string hint(const MadeAdapter& made) {
  return error_hint([&] { detected(made); });
}

using Shapes = std::pair<Shape, Shape>;
const Shapes kIn2 = {{2, 4}, {6, 2}}, kOut2 = {{2, 6}, {4, 2}};  // one expert: 4 -> 6, 6 -> 4
const Shapes kIn3 = {{8, 2, 4}, {8, 6, 2}}, kOut3 = {{8, 2, 6}, {8, 4, 2}};  // eight
const Shapes kSharedIn = {{1, 2, 4}, {8, 6, 2}}, kSharedOut = {{8, 2, 6}, {1, 4, 2}};

}  // namespace

TEST_CASE("names and shapes decide the layout") {
  CHECK(detected(pairs({{"0.gate_proj", kIn2}, {"0.up_proj", kIn2}, {"0.down_proj", kOut2}})) ==
        "peft-linear");
  CHECK(detected(pairs({{"0.w1", kIn2}, {"0.w3", kIn2}, {"0.w2", kOut2}})) == "peft-linear");
  CHECK(detected(pairs({{"0.gate_up_proj", {{2, 4}, {12, 2}}}, {"0.down_proj", kOut2}})) ==
        "linear-fused");
  CHECK(detected(pairs({{"gate_up_projs.0", {{2, 4}, {12, 2}}}, {"down_projs.0", kOut2}})) ==
        "linear-fused");
  CHECK(detected(pairs({{"gate_proj", kIn3}, {"up_proj", kIn3}, {"down_proj", kOut3}})) ==
        "stacked");
  CHECK(detected(pairs({{"w1", kIn3}, {"w3", kIn3}, {"w2", kOut3}})) == "stacked");
  CHECK(detected(pairs({{"w1", kSharedIn}, {"w3", kSharedIn}, {"w2", kSharedOut}})) ==
        "shared-outer");
  CHECK(detected(pairs({{"gate_proj", kSharedIn}, {"down_proj", kSharedOut}})) == "shared-outer");
  CHECK(detected(pairs({{"gate_up_proj", {{8, 2, 4}, {8, 12, 2}}}, {"down_proj", kOut3}})) ==
        "stacked-fused");
  CHECK(detected(pairs({{"base_layer", {{16, 4}, {12, 16}}}, {"", {{16, 6}, {4, 16}}}})) ==
        "peft-params");
}

TEST_CASE("down alone is recognized by its name and dims") {
  CHECK(detected(pairs({{"0.down_proj", kOut2}})) == "peft-linear");
  CHECK(detected(pairs({{"down_projs.0", kOut2}})) == "linear-fused");
  CHECK(detected(pairs({{"down_proj", kOut3}})) == "stacked");
  CHECK(detected(pairs({{"w2", kSharedOut}})) == "shared-outer");
  CHECK(detected(pairs({{"", {{16, 6}, {4, 16}}}})) == "peft-params");
}

TEST_CASE("one tensor with a leading 1 among stacked ones makes a file shared-outer") {
  CHECK(detected(pairs({{"w1", kIn3}, {"w3", kIn3}, {"w2", kOut3}})) == "stacked");
  CHECK(detected(pairs({{"w1", kIn3}, {"w3", kIn3}, {"w2", kSharedOut}})) == "shared-outer");
}

TEST_CASE("an empty w3, as non-gated models leave it, decides nothing") {
  const Shapes none = {{0, 2, 4}, {0, 6, 2}};
  CHECK(detected(pairs({{"w1", kSharedIn}, {"w3", none}, {"w2", kSharedOut}})) == "shared-outer");
  CHECK(detected(pairs({{"w1", kIn3}, {"w3", none}, {"w2", kOut3}})) == "stacked");
  CHECK(fault(pairs({{"w3", none}})) ==
        "base_model.model.model.layers.0.mlp.experts.w3.lora_A.weight [0, 2, 4]: the expert "
        "tensors of this file "
        "fit no single layout");
  CHECK(hint(pairs({{"w3", none}})) == "name the layout with --from");
}

TEST_CASE("attention, routers and shared experts are not routed experts") {
  MadeAdapter made;
  made.pair("model.layers.0.self_attn.q_proj", {2, 4}, {4, 2})
      .pair("model.layers.0.mlp.gate", {2, 4}, {8, 2})
      .pair("model.layers.0.mlp.shared_experts.gate_proj", {2, 4}, {6, 2})
      .pair("model.layers.0.mlp.shared_expert.down_proj", {2, 6}, {4, 2})
      .pair("lm_head", {2, 4}, {9, 2})
      .add("base_model.model.model.layers.0.mlp.experts.0.w1.lora_B.bias", {6});
  CHECK(expert_tensors(made.tensors()).empty());
  CHECK(detected(made) == "none");
}

TEST_CASE("a file of two layouts is refused, with a tensor of each") {
  const std::string front = "base_model.model.model.layers.0.mlp.experts.";
  SUBCASE("per-expert and stacked, as Megatron-Bridge's shared outer export mixes them (L5)") {
    MadeAdapter made;
    made.add(front + "gate_proj.lora_A.weight", {1, 2, 4})
        .add(front + "0.gate_proj.lora_B.weight", {6, 2});
    CHECK(fault(made) ==
          front + "gate_proj.lora_A.weight [1, 2, 4]: does not fit peft-linear, the layout of " +
              front + "0.gate_proj.lora_B.weight [6, 2]: the file mixes expert layouts");
    CHECK(hint(made) == "save the adapter in one layout, or split the file");
  }
  SUBCASE("fused and separate") {
    CHECK(fault(pairs({{"gate_up_proj", {{8, 2, 4}, {8, 12, 2}}}, {"up_proj", kIn3}})) ==
          front + "up_proj.lora_A.weight [8, 2, 4]: does not fit stacked-fused, the layout of " +
              front + "gate_up_proj.lora_A.weight [8, 2, 4]: the file mixes expert layouts");
  }
  SUBCASE("parameters and numbers") {
    CHECK(fault(pairs({{"base_layer", {{16, 4}, {12, 16}}}, {"0.down_proj", kOut2}})) ==
          front + "base_layer.lora_A.weight [16, 4]: does not fit peft-linear, the layout of " +
              front + "0.down_proj.lora_A.weight [2, 6]: the file mixes expert layouts");
  }
}

TEST_CASE("numbers in two places of a fused name mean two orders of rows") {
  const MadeAdapter made =
      pairs({{"0.gate_up_proj", {{2, 4}, {12, 2}}}, {"gate_up_projs.1", {{2, 4}, {12, 2}}}});
  const std::string front = "base_model.model.model.layers.0.mlp.experts.";
  CHECK(error_text([&] { made.read(); }) ==
        front +
            "gate_up_projs.1.lora_A.weight: mixes {e}.gate_up_proj and gate_up_projs.{e} with " +
            front + "0.gate_up_proj.lora_A.weight, whose rows are in another order");
  CHECK(error_hint([&] { made.read(); }) == "split the file");
}

TEST_CASE("an expert tensor of no layout is named") {
  const std::string front = "base_model.model.model.layers.0.mlp.experts.";
  const auto check = [&](const std::string& rest, const Shape& a, const std::string& shown) {
    CAPTURE(rest);
    MadeAdapter made = pairs({{"0.gate_proj", kIn2}, {rest, {a, {6, 2}}}});
    CHECK(fault(made) == front + rest + ".lora_A.weight " + shown +
                             ": is a routed-expert tensor of no known layout");
    CHECK(hint(made) == "the layout table of REFERENCE.md lists the names that are read");
  };
  check("shared.gate_proj", {2, 4}, "[2, 4]");  // L8: xorl's token for a shared side
  check("0.w4", {2, 4}, "[2, 4]");
  check("0.gate_proj.base_layer", {2, 4}, "[2, 4]");
  check("00.gate_proj", {2, 4}, "[2, 4]");
  check("gate_proj", {2, 4}, "[2, 4]");          // a stacked name, two dims
  check("0.gate_proj", {2, 4, 1}, "[2, 4, 1]");  // a numbered name, three dims
  check("base_layerbase_layer", {2, 4}, "[2, 4]");
}

TEST_CASE("--from says the layout, and what does not belong to it is named") {
  const MadeAdapter made = pairs({{"0.down_proj", kOut2}});
  CHECK(made.read("", {}, "linear-fused").layout->id == "linear-fused");
  CHECK(made.read("", {}, "peft-linear").layout->id == "peft-linear");
  CHECK(error_text([&] { made.read("", {}, "stacked"); }) ==
        "base_model.model.model.layers.0.mlp.experts.0.down_proj.lora_A.weight [2, 6]: is not a "
        "tensor of the layout "
        "stacked");
  CHECK(error_hint([&] { made.read("", {}, "stacked"); }) == "leave --from out to detect it");
  CHECK(error_text([&] { made.read("", {}, "peft"); }) == "--from: unknown layout 'peft'");
}
