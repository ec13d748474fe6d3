// Where single elements of a tensor come to lie: literal indices, one layout at a time.
// qwen3_moe: E 8, H 64, I 24; gpt_oss, mixtral: E 4, H 64, I 48; r = 2.

#include <doctest/doctest.h>

#include "tests/adapter/made_adapter.h"

using namespace moelora;
using namespace moelora::test;

namespace {

float element(const TensorMap& tensors, const std::string& name, const std::vector<int64_t>& at) {
  const Tensor& tensor = tensors.at("base_model.model." + name);
  REQUIRE(static_cast<size_t>(tensor.rank()) == at.size());
  int64_t index = 0;
  for (size_t d = 0; d < at.size(); ++d) index = index * tensor.dim(static_cast<int>(d)) + at[d];
  return floats(tensor)[static_cast<size_t>(index)];
}

// All experts and projections of qwen3_moe's two MoE layers, 3-D.
MadeAdapter complete_qwen() {
  MadeAdapter made;
  for (const std::string layer : {"model.layers.1.mlp.experts.", "model.layers.2.mlp.experts."})
    made.pair(layer + "gate_proj", {8, 2, 64}, {8, 24, 2})
        .pair(layer + "up_proj", {8, 2, 64}, {8, 24, 2})
        .pair(layer + "down_proj", {8, 2, 24}, {8, 64, 2});
  return made;
}

}  // namespace

TEST_CASE("a stacked tensor's element [e, i, j] is where each other layout keeps it") {
  const MadeAdapter made = complete_qwen();
  const TensorMap& in = made.tensors();
  const auto from = [&](const std::string& name, const std::vector<int64_t>& at) {
    return element(in, "model.layers.2.mlp.experts." + name, at);
  };
  SUBCASE("numbered") {
    const TensorMap out = made.convert("peft-linear", "qwen3_moe").tensors;
    CHECK(out.size() == 2 * 8 * 6);
    const std::string stem = "model.layers.2.mlp.experts.";
    CHECK(element(out, stem + "6.gate_proj.lora_A.weight", {1, 63}) ==
          from("gate_proj.lora_A.weight", {6, 1, 63}));
    CHECK(element(out, stem + "6.up_proj.lora_B.weight", {23, 1}) ==
          from("up_proj.lora_B.weight", {6, 23, 1}));
    CHECK(element(out, stem + "0.down_proj.lora_A.weight", {0, 5}) ==
          from("down_proj.lora_A.weight", {0, 0, 5}));
    CHECK(element(out, stem + "7.down_proj.lora_B.weight", {9, 1}) ==
          from("down_proj.lora_B.weight", {7, 9, 1}));
  }
  SUBCASE("fused, gate and up of their own A: rank 2 + 2, block-diagonal, gate rows first") {
    const TensorMap out = made.convert("stacked-fused", "qwen3_moe").tensors;
    CHECK(out.size() == 2 * 4);
    const std::string name = "model.layers.2.mlp.experts.gate_up_proj.lora_";
    CHECK(out.at("base_model.model." + name + "A.weight").shape() == Shape{8, 4, 64});
    CHECK(out.at("base_model.model." + name + "B.weight").shape() == Shape{8, 48, 4});
    CHECK(element(out, name + "A.weight", {5, 1, 7}) == from("gate_proj.lora_A.weight", {5, 1, 7}));
    CHECK(element(out, name + "A.weight", {5, 2, 7}) == from("up_proj.lora_A.weight", {5, 0, 7}));
    CHECK(element(out, name + "B.weight", {5, 3, 1}) == from("gate_proj.lora_B.weight", {5, 3, 1}));
    CHECK(element(out, name + "B.weight", {5, 24 + 3, 2}) ==
          from("up_proj.lora_B.weight", {5, 3, 0}));
    CHECK(element(out, name + "B.weight", {5, 3, 2}) == 0);
    CHECK(element(out, name + "B.weight", {5, 24 + 3, 1}) == 0);
  }
  SUBCASE("PEFT's parameters: A row e*r + k, B column k*E + e") {
    const TensorMap out = made.convert("peft-params", "qwen3_moe").tensors;
    CHECK(out.size() == 2 * 4);
    const std::string stem = "model.layers.2.mlp.experts.";
    CHECK(element(out, stem + "lora_A.weight", {3 * 2 + 1, 20}) ==
          from("down_proj.lora_A.weight", {3, 1, 20}));
    CHECK(element(out, stem + "lora_B.weight", {60, 1 * 8 + 3}) ==
          from("down_proj.lora_B.weight", {3, 60, 1}));
    CHECK(element(out, stem + "base_layer.lora_A.weight", {3 * 4 + 2, 9}) ==
          from("up_proj.lora_A.weight", {3, 0, 9}));
    CHECK(element(out, stem + "base_layer.lora_B.weight", {24 + 5, 2 * 8 + 3}) ==
          from("up_proj.lora_B.weight", {3, 5, 0}));
  }
  SUBCASE("PEFT's parameters, expert-major: B column e*r + k") {
    const TensorMap out =
        made.convert("peft-params", "qwen3_moe", {BOrder::expert_major, Roles::natural}).tensors;
    CHECK(element(out, "model.layers.2.mlp.experts.lora_B.weight", {60, 3 * 2 + 1}) ==
          from("down_proj.lora_B.weight", {3, 60, 1}));
  }
  SUBCASE("PEFT's parameters, swapped: lora_A is B transposed and the other way round") {
    const TensorMap out =
        made.convert("peft-params", "qwen3_moe", {BOrder::rank_major, Roles::swapped}).tensors;
    const std::string stem = "model.layers.2.mlp.experts.";
    CHECK(out.at("base_model.model." + stem + "lora_A.weight").shape() == Shape{16, 64});
    CHECK(out.at("base_model.model." + stem + "lora_B.weight").shape() == Shape{24, 16});
    CHECK(element(out, stem + "lora_A.weight", {3 * 2 + 1, 60}) ==
          from("down_proj.lora_B.weight", {3, 60, 1}));
    CHECK(element(out, stem + "lora_B.weight", {20, 1 * 8 + 3}) ==
          from("down_proj.lora_A.weight", {3, 1, 20}));
  }
}

TEST_CASE(
    "gpt-oss keeps gate and up interleaved in PEFT's parameters and in Unsloth's plural names "
    "only") {
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4, "target_parameters": ["experts.gate_up_proj"]})");
  made.pair("model.layers.1.mlp.experts", {8, 64}, {96, 8});
  const std::string lone = "model.layers.1.mlp.experts.lora_B.weight";
  SUBCASE("separate") {
    const TensorMap out = made.convert("stacked", "gpt_oss").tensors;
    CHECK(element(out, "model.layers.1.mlp.experts.gate_proj.lora_B.weight", {3, 10, 1}) ==
          element(made.tensors(), lone, {20, 1 * 4 + 3}));
    CHECK(element(out, "model.layers.1.mlp.experts.up_proj.lora_B.weight", {3, 10, 1}) ==
          element(made.tensors(), lone, {21, 1 * 4 + 3}));
  }
  SUBCASE("fused for SGLang: in halves") {
    const TensorMap out = made.convert("stacked-fused", "gpt_oss").tensors;
    CHECK(element(out, "model.layers.1.mlp.experts.gate_up_proj.lora_B.weight", {3, 10, 1}) ==
          element(made.tensors(), lone, {20, 1 * 4 + 3}));
    CHECK(element(out, "model.layers.1.mlp.experts.gate_up_proj.lora_B.weight", {3, 48 + 10, 1}) ==
          element(made.tensors(), lone, {21, 1 * 4 + 3}));
  }
  SUBCASE("from the plural names") {
    MadeAdapter plural;
    plural.pair("model.layers.0.mlp.experts.gate_up_projs.2", {2, 64}, {96, 2});
    const TensorMap out = plural.convert("peft-linear", "gpt_oss").tensors;
    const std::string from = "model.layers.0.mlp.experts.gate_up_projs.2.lora_B.weight";
    CHECK(element(out, "model.layers.0.mlp.experts.2.gate_proj.lora_B.weight", {7, 1}) ==
          element(plural.tensors(), from, {14, 1}));
    CHECK(element(out, "model.layers.0.mlp.experts.2.up_proj.lora_B.weight", {7, 1}) ==
          element(plural.tensors(), from, {15, 1}));
  }
}

TEST_CASE("experts are ordered as numbers: 2 before 10, whatever order the file's names have") {
  const std::string stem = "model.layers.0.mlp.experts.";
  MadeAdapter made;
  for (int e = 0; e < 12; ++e) made.pair(stem + std::to_string(e) + ".down_proj", {2, 6}, {4, 2});
  for (int e = 0; e < 12; ++e)
    made.pair(stem + std::to_string(e) + ".gate_up_proj", {2, 4}, {12, 2});
  const TensorMap out = made.convert("stacked-fused").tensors;
  CHECK(out.at("base_model.model." + stem + "down_proj.lora_A.weight").shape() == Shape{12, 2, 6});
  for (int64_t e = 0; e < 12; ++e) {
    CAPTURE(e);
    const std::string one = stem + std::to_string(e);
    CHECK(element(out, stem + "down_proj.lora_A.weight", {e, 1, 3}) ==
          element(made.tensors(), one + ".down_proj.lora_A.weight", {1, 3}));
    CHECK(element(out, stem + "gate_up_proj.lora_B.weight", {e, 11, 0}) ==
          element(made.tensors(), one + ".gate_up_proj.lora_B.weight", {11, 0}));
  }
}

TEST_CASE("the family's spelling is written unless canonical names are asked for") {
  MadeAdapter made;
  for (const std::string layer : {"model.layers.0.", "model.layers.1."})
    made.pair(layer + "mlp.experts.gate_proj", {4, 2, 64}, {4, 48, 2})
        .pair(layer + "mlp.experts.up_proj", {4, 2, 64}, {4, 48, 2})
        .pair(layer + "mlp.experts.down_proj", {4, 2, 48}, {4, 64, 2});
  const auto up = [&](const TensorMap& out, const std::string& name) {
    return element(out, name, {7, 1}) ==
           element(made.tensors(), "model.layers.1.mlp.experts.up_proj.lora_B.weight", {3, 7, 1});
  };
  CHECK(up(made.convert("peft-linear", "mixtral").tensors,
           "model.layers.1.block_sparse_moe.experts.3.w3.lora_B.weight"));
  LayoutWriteOptions canonical;
  canonical.canonical_names = true;
  CHECK(up(made.convert("peft-linear", "mixtral", canonical).tensors,
           "model.layers.1.block_sparse_moe.experts.3.up_proj.lora_B.weight"));
}

TEST_CASE("3-D tensors are read in both spellings: w1 is gate_proj, w3 up_proj, w2 down_proj") {
  MadeAdapter words, numbers;
  words.pair("model.layers.1.mlp.experts.gate_proj", {8, 2, 64}, {8, 24, 2})
      .pair("model.layers.1.mlp.experts.up_proj", {8, 2, 64}, {8, 24, 2})
      .pair("model.layers.1.mlp.experts.down_proj", {8, 2, 24}, {8, 64, 2});
  numbers.pair("model.layers.1.mlp.experts.w1", {8, 2, 64}, {8, 24, 2})
      .pair("model.layers.1.mlp.experts.w3", {8, 2, 64}, {8, 24, 2})
      .pair("model.layers.1.mlp.experts.w2", {8, 2, 24}, {8, 64, 2});
  const Adapter a = words.read("qwen3_moe").adapter, b = numbers.read("qwen3_moe").adapter;
  for (const Projection p : {Projection::gate, Projection::up, Projection::down}) {
    CAPTURE(projection_name(p));
    CHECK(floats(a.experts.at({1, p}).a.at(3)) == floats(b.experts.at({1, p}).a.at(3)));
    CHECK(floats(a.experts.at({1, p}).b.at(3)) == floats(b.experts.at({1, p}).b.at(3)));
  }
}

TEST_CASE("a pattern may spell a 3-D tensor as the file does, or canonically") {
  const std::string stem = "model.layers.0.mlp.experts.";
  const auto scale = [&](const std::string& pattern) {
    MadeAdapter made(R"({"r": 2, "lora_alpha": 4, "alpha_pattern": {")" + pattern + R"(": 16}})");
    made.pair(stem + "w2", {4, 2, 48}, {4, 64, 2});
    return made.read("mixtral").adapter.experts.at({0, Projection::down}).scaling_of(3).value();
  };
  CHECK(scale("experts.w2") == 8);
  CHECK(scale("down_proj") == 8);
  CHECK(scale(".*\\\\.w2") == 8);
  CHECK(scale("w1") == 2);
}
