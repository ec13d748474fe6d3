// Mistakes of places: rows, ranks, experts, sides and projections that lie where others belong.
// Each test begins with the mistake's id (lib/compare/mistakes.h).

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/compare/broken_pair.h"

using namespace moelora;
using namespace moelora::test;

TEST_CASE("gate-up-b-exchanged: halves of the packed lora_B") {
  for (const MadeOptions& made : {one_a(), MadeOptions{}}) {
    BrokenPair c = sound_pair("stacked-fused", made);
    reorder_rows(c.packed, {"gate_up_proj.lora_B"},
                 [](int64_t j, int64_t n) { return (j + n / 2) % n; });
    check_named(c, "gate-up-b-exchanged");
  }
}

TEST_CASE("gate-up-a-exchanged: rank blocks of the packed lora_A") {
  BrokenPair c = sound_pair("stacked-fused");
  reorder_rows(c.packed, {"gate_up_proj.lora_A"},
               [](int64_t j, int64_t n) { return (j + n / 2) % n; });
  check_named(c, "gate-up-a-exchanged");
}

TEST_CASE("gate-up-exchanged: w1 and w3 named the wrong way round") {
  BrokenPair c = sound_pair("stacked");
  exchange(c.packed, "gate_proj", "up_proj");
  check_named(c, "gate-up-exchanged");
}

TEST_CASE("up-uses-gate-a: its own is lost") {
  BrokenPair c = sound_pair("stacked");
  for (auto& [name, tensor] : c.packed.tensors)
    if (const size_t at = name.find("up_proj.lora_A"); at != std::string::npos)
      tensor = c.packed.tensors.at(name.substr(0, at) + "gate_proj.lora_A.weight");
  check_named(c, "up-uses-gate-a");
}

TEST_CASE("gate-up-interleaved, gate-up-halves: interleaved rows left, or taken apart twice") {
  SUBCASE("left") {
    BrokenPair c = sound_pair("stacked-fused", one_a());
    reorder_rows(c.packed, {"gate_up_proj.lora_B"},
                 [](int64_t j, int64_t n) { return j / 2 + j % 2 * (n / 2); });
    check_named(c, "gate-up-interleaved");
  }
  SUBCASE("twice") {
    BrokenPair c = sound_pair("stacked-fused", one_a());
    reorder_rows(c.packed, {"gate_up_proj.lora_B"},
                 [](int64_t j, int64_t n) { return j < n / 2 ? 2 * j : 2 * (j - n / 2) + 1; });
    check_named(c, "gate-up-halves");
  }
  SUBCASE("gpt-oss halves read as interleaved") {
    BrokenPair c = sound_pair("linear-fused", one_a(), {}, "gpt_oss");
    reorder_rows(c.packed, {"gate_up_proj.lora_B"},
                 [](int64_t j, int64_t n) { return j / 2 + j % 2 * (n / 2); });
    check_named(c, "gate-up-interleaved");
  }
}

TEST_CASE("experts-rotated: expert e holds e + 1") {
  BrokenPair c = sound_pair("stacked");
  reorder_experts(c.packed, {"experts"}, [](size_t e) { return (e + 1) % 12; });
  check_named(c, "experts-rotated");
}

TEST_CASE("experts-as-strings: in the order of their names") {
  BrokenPair c = sound_pair("stacked-fused");
  std::vector<size_t> order(12);
  for (size_t e = 0; e < order.size(); ++e) order[e] = e;
  std::sort(order.begin(), order.end(),
            [](size_t a, size_t b) { return std::to_string(a) < std::to_string(b); });
  reorder_experts(c.packed, {"experts"}, [&](size_t e) { return order[e]; });
  check_named(c, "experts-as-strings");
}

TEST_CASE("experts-exchanged: two experts") {
  BrokenPair c = sound_pair("peft-linear");
  exchange(c.packed, ".3.", ".7.");
  check_named(c, "experts-exchanged");
}

TEST_CASE("a-reshaped: down A where it must be transposed") {
  BrokenPair c = sound_pair("stacked");
  reshape_instead(c.packed, {"down_proj.lora_A"});
  check_named(c, "a-reshaped");
}

TEST_CASE("b-reshaped: where it must be transposed") {
  BrokenPair c = sound_pair("stacked");
  reshape_instead(c.packed, {"gate_proj.lora_B"});
  check_named(c, "b-reshaped");
}

TEST_CASE(
    "b-order-expert-major, b-order-rank-major: columns of a stacked lora_B in the other order") {
  BrokenPair c = sound_pair("peft-params");
  SUBCASE("the values") {
    edit(c.packed, {"lora_B"}, [](Values& values, const Shape& shape) {
      const Values old = values;
      const auto n = static_cast<size_t>(shape[1]), experts = size_t{12}, rank = n / experts;
      for (size_t o = 0; o < static_cast<size_t>(shape[0]); ++o)
        for (size_t e = 0; e < experts; ++e)
          for (size_t k = 0; k < rank; ++k)
            values[o * n + e * rank + k] = old[o * n + k * experts + e];
    });
    check_named(c, "b-order-expert-major");
  }
  SUBCASE("the marker") {
    c.packed.config.erase("auto_mapping");
    set(c.packed, "lora_B_layout", Json("grouped_by_expert"));
    check_named(c, "b-order-rank-major");
  }
}

TEST_CASE("rank-slot: the second slice lies at r rather than at the padded rank") {
  BrokenPair c = sound_pair("stacked-fused");
  // Slots of 8: up's columns of lora_B begin at 8, its rows of lora_A wrongly at 3.
  for (auto& [name, tensor] : c.packed.tensors) {
    if (name.find("gate_up_proj") == std::string::npos) continue;
    const bool a = name.find("lora_A") != std::string::npos;
    Shape shape = tensor.shape();
    const Shape old_shape = shape;
    shape[a ? 1 : 2] = 16;
    Values old = values_of(tensor),
           values(static_cast<size_t>(Tensor::zeros(DType::F32, shape).elements()));
    const View before{old, old_shape}, after{values, shape};
    for (int64_t e = 0; e < old_shape[0]; ++e)
      for (int64_t j = 0; j < old_shape[1]; ++j)
        for (int64_t k = 0; k < old_shape[2]; ++k)
          after.at(e, j, a || k < 3 ? k : k + 5) = before.at(e, j, k);
    tensor = Tensor::of_f32(shape, values);
  }
  set(c.packed, "rank_pattern", parse_json(R"({"gate_up_proj": 16})", "t"));
  set(c.packed, "alpha_pattern", parse_json(R"({"gate_up_proj": 64})", "t"));
  check_named(c, "rank-slot");
}

TEST_CASE("one-for-all: a per-expert A collapsed to one") {
  BrokenPair c = sound_pair("stacked");
  reorder_experts(c.packed, {"gate_proj.lora_A"}, [](size_t) { return size_t{0}; });
  check_named(c, "one-for-all");
}

TEST_CASE("wrong-side-shared, averaged: one factor for all experts") {
  BrokenPair c = sound_pair("stacked");
  SUBCASE("down A") {
    reorder_experts(c.packed, {"down_proj.lora_A"}, [](size_t) { return size_t{0}; });
    check_named(c, "wrong-side-shared");
  }
  SUBCASE("an average") {
    edit(c.packed, {"down_proj.lora_B"}, [](Values& values, const Shape& shape) {
      const auto one = static_cast<size_t>(shape[1] * shape[2]);
      const auto experts = static_cast<size_t>(shape[0]);
      for (size_t i = 0; i < one; ++i) {
        float sum = 0;
        for (size_t e = 0; e < experts; ++e) sum += values[e * one + i];
        for (size_t e = 0; e < experts; ++e)
          values[e * one + i] = sum / static_cast<float>(experts);
      }
    });
    check_named(c, "averaged");
  }
}

TEST_CASE("other-projection: w2 taken for w1") {
  BrokenPair c = sound_pair("stacked", {}, square());
  exchange(c.packed, "gate_proj", "down_proj");
  check_named(c, "other-projection");
}

TEST_CASE("roles-exchanged: A and B exchanged and transposed") {
  BrokenPair c = sound_pair("stacked", {}, square());
  const TensorMap before = c.packed.tensors;
  for (auto& [name, tensor] : c.packed.tensors) {
    std::string other = name;
    char& side = other[other.rfind("lora_") + 5];
    side = side == 'A' ? 'B' : 'A';
    tensor = Tensor::of_f32(tensor.shape(), values_of(before.at(other).transpose(1, 2)));
  }
  check_named(c, "roles-exchanged");
}

TEST_CASE("tp-slice: rows cut from the joint axis by tensor parallelism") {
  for (const int64_t tp : {2, 4}) {
    BrokenPair c = sound_pair("stacked-fused", one_a());
    reorder_rows(c.packed, {"gate_up_proj.lora_B"}, [&](int64_t j, int64_t n) {
      const int64_t half = n / 2, part = half / tp;  // [gate part; up part] shard by shard
      return j % (2 * part) / part * half + j / (2 * part) * part + j % part;
    });
    check_named(c, "tp-slice");
  }
}
