#include "lib/adapter/gate_up.h"

#include <doctest/doctest.h>

#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

using Values = std::vector<float>;

const std::string kExperts = "model.layers.0.mlp.experts.";
constexpr ExpertKey kGate{0, Projection::gate}, kUp{0, Projection::up},
    kGateUp{0, Projection::gate_up};

// Two experts, r = 1, in = 3, I = 2. Expert 0: gate A 1 2 3, gate B 7 8, up A 11 12 13, up B 17 18.
// Expert 1: gate A 4 5 6, gate B 9 10, up A 14 15 16, up B 19 20.
MadeAdapter two_experts(const std::string& more = "") {
  MadeAdapter made(R"({"r": 1, "lora_alpha": 4)" + more + "}");
  made.pair(kExperts + "gate_proj", {2, 1, 3}, {2, 2, 1})
      .pair(kExperts + "up_proj", {2, 1, 3}, {2, 2, 1});
  return made;
}

Tensor matrix(int64_t rows, int64_t cols, const Values& values) {
  return Tensor::of_f32({rows, cols}, values);
}

Adapter fused(const MadeAdapter& made, GateUpOrder order) {
  Adapter adapter = made.read().adapter;
  fuse_gate_up(adapter, order);
  return adapter;
}

}  // namespace

TEST_CASE("halves are the first and the last rows, interleaved ones every second") {
  const Tensor fused = matrix(6, 1, {1, 2, 3, 4, 5, 6});
  CHECK(floats(gate_up_half(fused, GateUpOrder::halves, 0)) == Values{1, 2, 3});
  CHECK(floats(gate_up_half(fused, GateUpOrder::halves, 1)) == Values{4, 5, 6});
  CHECK(floats(gate_up_half(fused, GateUpOrder::interleaved, 0)) == Values{1, 3, 5});
  CHECK(floats(gate_up_half(fused, GateUpOrder::interleaved, 1)) == Values{2, 4, 6});
}

TEST_CASE("joining is the other way round, rows kept whole") {
  const Tensor gate = matrix(2, 2, {1, 2, 3, 4}), up = matrix(2, 2, {5, 6, 7, 8});
  CHECK(floats(join_gate_up(gate, up, GateUpOrder::halves)) == Values{1, 2, 3, 4, 5, 6, 7, 8});
  CHECK(floats(join_gate_up(gate, up, GateUpOrder::interleaved)) == Values{1, 2, 5, 6, 3, 4, 7, 8});
  for (const GateUpOrder order : {GateUpOrder::halves, GateUpOrder::interleaved}) {
    const Tensor both = join_gate_up(gate, up, order);
    CHECK(both.shape() == Shape{4, 2});
    CHECK(floats(gate_up_half(both, order, 0)) == floats(gate));
    CHECK(floats(gate_up_half(both, order, 1)) == floats(up));
  }
}

TEST_CASE(
    "gate and up with factors A of their own are stacked, B is block-diagonal, the scale stays") {
  const Adapter halves = fused(two_experts(), GateUpOrder::halves);
  REQUIRE(halves.experts.size() == 1);
  const ExpertPair& pair = halves.experts.at(kGateUp);
  CHECK(floats(pair.a.at(0)) == Values{1, 2, 3, 11, 12, 13});
  CHECK(floats(pair.b.at(0)) == Values{7, 0, 8, 0, 0, 17, 0, 18});
  CHECK(floats(pair.a.at(1)) == Values{4, 5, 6, 14, 15, 16});
  CHECK(floats(pair.b.at(1)) == Values{9, 0, 10, 0, 0, 19, 0, 20});
  CHECK(pair.scaling == std::vector{Scaling{2, 8, false}});
  CHECK(halves.gate_up_order == GateUpOrder::halves);

  const Adapter interleaved = fused(two_experts(), GateUpOrder::interleaved);
  CHECK(floats(interleaved.experts.at(kGateUp).b.at(0)) == Values{7, 0, 0, 17, 8, 0, 0, 18});
  CHECK(interleaved.gate_up_order == GateUpOrder::interleaved);
}

TEST_CASE("gate and up with the same A keep their rank") {
  MadeAdapter made = two_experts();
  made.copy(a_name(kExperts + "up_proj"), a_name(kExperts + "gate_proj"));
  const ExpertPair pair = fused(made, GateUpOrder::halves).experts.at(kGateUp);
  CHECK(floats(pair.a.at(1)) == Values{4, 5, 6});
  CHECK(floats(pair.b.at(1)) == Values{9, 10, 19, 20});
  CHECK(pair.scaling == std::vector{Scaling{1, 4, false}});
  SUBCASE("interleaved") {
    CHECK(floats(fused(made, GateUpOrder::interleaved).experts.at(kGateUp).b.at(1)) ==
          Values{9, 19, 10, 20});
  }
  SUBCASE("but not when one expert's differ") {
    MadeAdapter numbered(made.config());  // per expert, so that only expert 1 differs
    numbered.pair(kExperts + "0.gate_proj", {1, 3}, {2, 1})
        .pair(kExperts + "0.up_proj", {1, 3}, {2, 1});
    numbered.pair(kExperts + "1.gate_proj", {1, 3}, {2, 1})
        .pair(kExperts + "1.up_proj", {1, 3}, {2, 1});
    numbered.copy(a_name(kExperts + "0.up_proj"), a_name(kExperts + "0.gate_proj"));
    const ExpertPair both = fused(numbered, GateUpOrder::halves).experts.at(kGateUp);
    CHECK(both.a.at(0).dim(0) == 2);
    CHECK(both.a.at(1).dim(0) == 2);
  }
}

TEST_CASE("a missing half is zero rows: exactly the delta that no LoRA is") {
  for (const char* there : {"gate_proj", "up_proj"}) {
    CAPTURE(there);
    MadeAdapter made(R"({"r": 1, "lora_alpha": 4})");
    made.pair(kExperts + there, {2, 1, 3}, {2, 2, 1});  // A 1..6, B 7..10
    const ExpertPair pair = fused(made, GateUpOrder::halves).experts.at(kGateUp);
    const bool gate = std::string(there) == "gate_proj";
    CHECK(floats(pair.a.at(1)) == Values{4, 5, 6});
    CHECK(floats(pair.b.at(1)) == (gate ? Values{9, 10, 0, 0} : Values{0, 0, 9, 10}));
    CHECK(pair.scaling == std::vector{Scaling{1, 4, false}});
    const ExpertPair woven = fused(made, GateUpOrder::interleaved).experts.at(kGateUp);
    CHECK(floats(woven.b.at(1)) == (gate ? Values{9, 0, 10, 0} : Values{0, 9, 0, 10}));
  }
}

TEST_CASE("experts are fused one by one: both halves, one, or none") {
  MadeAdapter made(R"({"r": 1, "lora_alpha": 4})");
  made.pair(kExperts + "0.gate_proj", {1, 3}, {2, 1})  // A 1 2 3, B 4 5
      .pair(kExperts + "0.up_proj", {1, 3}, {2, 1})    // A 6 7 8, B 9 10
      .pair(kExperts + "2.up_proj", {1, 3}, {2, 1});   // A 11 12 13, B 14 15
  const ExpertPair pair = fused(made, GateUpOrder::halves).experts.at(kGateUp);
  CHECK(floats(pair.b.at(0)) == Values{4, 0, 5, 0, 0, 9, 0, 10});
  CHECK(!pair.a.has(1));
  CHECK(!pair.b.has(1));
  CHECK(floats(pair.a.at(2)) == Values{11, 12, 13});
  CHECK(floats(pair.b.at(2)) == Values{0, 0, 14, 15});
  REQUIRE(pair.scaling.size() == 3);
  CHECK(pair.scaling[0] == Scaling{2, 8, false});
  CHECK(pair.scaling[2] == Scaling{1, 4, false});
}

TEST_CASE("a shared A stays one matrix for all experts") {
  MadeAdapter made(R"({"r": 1, "lora_alpha": 4})");
  made.pair(kExperts + "w1", {1, 1, 3}, {2, 2, 1}).pair(kExperts + "w3", {1, 1, 3}, {2, 2, 1});
  SUBCASE("of its own for gate and up") {
    const ExpertPair pair = fused(made, GateUpOrder::halves).experts.at(kGateUp);
    CHECK(pair.a.shared);
    CHECK(pair.a.parts.size() == 1);
    CHECK(floats(pair.a.at(1)) == Values{1, 2, 3, 8, 9, 10});
    CHECK(floats(pair.b.at(1)) == Values{6, 0, 7, 0, 0, 13, 0, 14});
    CHECK(!pair.b.shared);
  }
  SUBCASE("the same for gate and up") {
    made.copy(a_name(kExperts + "w3"), a_name(kExperts + "w1"));
    const ExpertPair pair = fused(made, GateUpOrder::halves).experts.at(kGateUp);
    CHECK(pair.a.shared);
    CHECK(floats(pair.a.at(1)) == Values{1, 2, 3});
    CHECK(floats(pair.b.at(1)) == Values{6, 7, 13, 14});
  }
}

TEST_CASE("gate and up of different scales cannot be one pair") {
  const MadeAdapter made = two_experts(R"(, "alpha_pattern": {"up_proj": 2})");
  CHECK(error_text([&] { fused(made, GateUpOrder::halves); }) ==
        "layer 0, expert 0: gate has the scale 4 and up 2: one gate_up pair has one scale");
  CHECK(error_hint([&] { fused(made, GateUpOrder::halves); }) ==
        "convert to a layout with separate gate and up (peft-linear, stacked)");
  SUBCASE("the same scale from another rank and alpha makes no difference") {
    MadeAdapter ranks(
        R"({"r": 1, "lora_alpha": 4, "rank_pattern": {"up_proj": 2}, "alpha_pattern": {"up_proj": 8}})");
    ranks.pair(kExperts + "gate_proj", {2, 1, 3}, {2, 2, 1})
        .pair(kExperts + "up_proj", {2, 2, 3}, {2, 2, 2});
    const ExpertPair pair = fused(ranks, GateUpOrder::halves).experts.at(kGateUp);
    CHECK(pair.scaling == std::vector{Scaling{3, 12, false}});
    CHECK(pair.a.at(0).shape() == Shape{3, 3});
    CHECK(pair.b.at(0).shape() == Shape{4, 3});
  }
}

TEST_CASE("splitting gives gate and up the same A and the rows of B that are theirs") {
  MadeAdapter made(R"({"r": 1, "lora_alpha": 4})");
  made.pair(kExperts + "gate_up_proj", {2, 1, 3}, {2, 4, 1});  // A 1..6, B 7..14
  Adapter adapter = made.read().adapter;
  SUBCASE("in halves") {
    split_gate_up(adapter);
    CHECK(floats(adapter.experts.at(kGate).a.at(1)) == Values{4, 5, 6});
    CHECK(floats(adapter.experts.at(kUp).a.at(1)) == Values{4, 5, 6});
    CHECK(floats(adapter.experts.at(kGate).b.at(1)) == Values{11, 12});
    CHECK(floats(adapter.experts.at(kUp).b.at(1)) == Values{13, 14});
    CHECK(adapter.experts.count(kGateUp) == 0);
    CHECK(!adapter.gate_up_order);
  }
  SUBCASE("interleaved") {
    adapter.gate_up_order = GateUpOrder::interleaved;
    split_gate_up(adapter);
    CHECK(floats(adapter.experts.at(kGate).b.at(1)) == Values{11, 13});
    CHECK(floats(adapter.experts.at(kUp).b.at(1)) == Values{12, 14});
  }
  SUBCASE("and fusing them again is the same tensor, at the same rank, without reading a byte") {
    const Tensor b = adapter.experts.at(kGateUp).b.at(1);
    split_gate_up(adapter);
    fuse_gate_up(adapter, GateUpOrder::halves);
    CHECK(floats(adapter.experts.at(kGateUp).b.at(1)) == floats(b));
    CHECK(floats(adapter.experts.at(kGateUp).a.at(1)) == Values{4, 5, 6});
  }
  SUBCASE("not when the order of the rows is unknown") {
    adapter.gate_up_order.reset();
    CHECK(error_text([&] { split_gate_up(adapter); }) ==
          "layer 0 gate_up_proj: whether gate and up rows are halves or interleaved depends on the "
          "model family, which is not known");
    CHECK(error_hint([&] { split_gate_up(adapter); }) ==
          "name the base model with --base, or say \"gate_up_order\" in a file for --model-spec");
  }
}

TEST_CASE("factors that are fused already are brought to the order asked for") {
  MadeAdapter made(R"({"r": 1, "lora_alpha": 4})");
  made.pair(kExperts + "gate_up_proj", {2, 1, 3},
            {2, 4, 1});  // B of expert 0: 7 8 9 10, gate first
  Adapter adapter = made.read().adapter;
  fuse_gate_up(adapter, GateUpOrder::halves);
  CHECK(floats(adapter.experts.at(kGateUp).b.at(0)) == Values{7, 8, 9, 10});
  fuse_gate_up(adapter, GateUpOrder::interleaved);
  CHECK(floats(adapter.experts.at(kGateUp).b.at(0)) == Values{7, 9, 8, 10});
  CHECK(adapter.gate_up_order == GateUpOrder::interleaved);
  fuse_gate_up(adapter, GateUpOrder::halves);
  CHECK(floats(adapter.experts.at(kGateUp).b.at(0)) == Values{7, 8, 9, 10});
  adapter.gate_up_order.reset();
  CHECK(!error_text([&] { fuse_gate_up(adapter, GateUpOrder::halves); }).empty());
}
