// What the pairs of PEFT's target_parameters form are is decided from dims, config and flags, or
// asked. Catalogue bases, r = 2: qwen3_moe E 8, H 64, I 24 (layers 1, 2); gpt_oss E 4, H 64, I 48;
// nemotron_h without a gate, E 4, H 64, I 24 (layers 1, 3).

#include "lib/adapter/stacked_pairs.h"

#include <doctest/doctest.h>

#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

constexpr ReadOptions kNatural{{}, Roles::natural}, kSwapped{{}, Roles::swapped};

// A pair of layer `layer`, `a` and `b` without the E*r axis (r = 2).
struct Stacks {
  int64_t experts;
  std::string config = R"({"r": 2, "lora_alpha": 4})";
  MadeAdapter made{config};

  Stacks& pair(const std::string& module, int64_t a, int64_t b) {
    made.pair(module, {experts * 2, a}, {b, experts * 2});
    return *this;
  }
};

const std::string kQwen = "model.layers.1.mlp.experts", kNemotron = "model.layers.1.mixer.experts",
                  kOss = "model.layers.0.mlp.experts";

std::string config(const std::string& more) { return R"({"r": 2, "lora_alpha": 4)" + more + "}"; }

// The two pairs of a qwen3_moe layer; `outer` and `inner` are (A dim, B dim).
MadeAdapter qwen(std::pair<int64_t, int64_t> inner, std::pair<int64_t, int64_t> outer,
                 const std::string& more = "") {
  return Stacks{8, config(more)}
      .pair(kQwen + ".base_layer", inner.first, inner.second)
      .pair(kQwen, outer.first, outer.second)
      .made;
}

// What was made of a file: "swapped" noted, and for gate_up and down the file's element that is
// element [1, 0] of expert 3's A.
struct Reading {
  bool swapped = false;
  float first = 0, down = 0;
  friend bool operator==(const Reading&, const Reading&) = default;
};

bool swapped(const LoadedAdapter& loaded) {
  for (const std::string& note : loaded.notes)
    if (note.starts_with("lora_A lies on the output side")) return true;
  return false;
}

float a_of_expert_3(const Adapter& adapter, int layer, Projection projection) {
  const auto found = adapter.experts.find({layer, projection});
  if (found == adapter.experts.end()) return 0;
  const Tensor& a = found->second.a.at(3);
  return floats(a)[static_cast<size_t>(a.dim(1))];
}

Reading reading(const MadeAdapter& made, const std::string& family, int layer,
                const ReadOptions& options = {}) {
  const LoadedAdapter loaded = made.read(family, options);
  const bool gateless = family == "nemotron_h";
  return {swapped(loaded),
          a_of_expert_3(loaded.adapter, layer, gateless ? Projection::up : Projection::gate_up),
          a_of_expert_3(loaded.adapter, layer, Projection::down)};
}

// Element [row, column] of a factor in the file.
float at(const MadeAdapter& made, const std::string& name, int64_t row, int64_t column) {
  const Tensor& t = made.tensors().at(name);
  return floats(t)[static_cast<size_t>(row * t.dim(1) + column)];
}

// Element [1, 0] of A of expert 3, where A is lora_A (row e*r + k), or lora_B turned (column k*E +
// e).
float natural_a(const MadeAdapter& made, const std::string& module) {
  return at(made, a_name(module), 7, 0);
}
float swapped_a(const MadeAdapter& made, const std::string& module, int64_t experts) {
  return at(made, b_name(module), 0, experts + 3);
}

std::string fault(const MadeAdapter& made, const std::string& family,
                  const ReadOptions& options = {}) {
  return error_text([&] { made.read(family, options); });
}

std::string hint(const MadeAdapter& made, const std::string& family,
                 const ReadOptions& options = {}) {
  return error_hint([&] { made.read(family, options); });
}

}  // namespace

TEST_CASE("how deep a name is nested is the number of base_layer") {
  CHECK(nesting("") == 0);
  CHECK(nesting("base_layer") == 1);
  CHECK(nesting("base_layer.base_layer") == 2);
  for (const char* rest :
       {"base_layer.", "base_layerbase_layer", ".base_layer", "base_layer.x", "x", "0.w1"})
    CHECK_MESSAGE(!nesting(rest), rest);
}

TEST_CASE("with a base model the dims decide each pair's parameter and the side of lora_A") {
  const std::string inner = kQwen + ".base_layer";
  SUBCASE("PEFT 0.19.1 and newer") {
    const MadeAdapter made = qwen({64, 48}, {24, 64});
    CHECK(reading(made, "qwen3_moe", 1) ==
          Reading{false, natural_a(made, inner), natural_a(made, kQwen)});
  }
  SUBCASE("PEFT 0.18 and older: A over the output") {
    const MadeAdapter made = qwen({48, 64}, {64, 24});
    CHECK(reading(made, "qwen3_moe", 1) ==
          Reading{true, swapped_a(made, inner, 8), swapped_a(made, kQwen, 8)});
  }
  SUBCASE("parametrized experts: down is the inner one") {
    const MadeAdapter made = qwen({24, 64}, {64, 48});
    CHECK(reading(made, "qwen3_moe", 1) ==
          Reading{false, natural_a(made, kQwen), natural_a(made, inner)});
  }
  SUBCASE("both") {
    const MadeAdapter made = qwen({64, 24}, {48, 64});
    CHECK(reading(made, "qwen3_moe", 1) ==
          Reading{true, swapped_a(made, kQwen, 8), swapped_a(made, inner, 8)});
  }
  SUBCASE("one parameter only, either") {
    const MadeAdapter wide = Stacks{8}.pair(kQwen, 64, 48).made,
                      narrow = Stacks{8}.pair(kQwen, 24, 64).made;
    CHECK(reading(wide, "qwen3_moe", 1) == Reading{false, natural_a(wide, kQwen), 0});
    CHECK(reading(narrow, "qwen3_moe", 1) == Reading{false, 0, natural_a(narrow, kQwen)});
  }
  SUBCASE("one parameter only, old PEFT") {
    const MadeAdapter made = Stacks{8}.pair(kQwen, 48, 64).made;
    CHECK(reading(made, "qwen3_moe", 1) == Reading{true, swapped_a(made, kQwen, 8), 0});
  }
  SUBCASE("layers with one and layers with two") {
    const std::string second = "model.layers.2.mlp.experts";
    Stacks stacks{8};
    stacks.pair(kQwen + ".base_layer", 64, 48).pair(kQwen, 24, 64).pair(second, 64, 48);
    CHECK(reading(stacks.made, "qwen3_moe", 1).down == natural_a(stacks.made, kQwen));
    CHECK(reading(stacks.made, "qwen3_moe", 2) ==
          Reading{false, natural_a(stacks.made, second), 0});
  }
}

TEST_CASE("without a base model two pairs of a layer identify each other") {
  const std::string inner = kQwen + ".base_layer";
  const MadeAdapter plain = qwen({64, 48}, {24, 64}), old = qwen({48, 64}, {64, 24}),
                    alphabetical = qwen({24, 64}, {64, 48});
  CHECK(reading(plain, "", 1) == Reading{false, natural_a(plain, inner), natural_a(plain, kQwen)});
  CHECK(reading(old, "", 1) == Reading{true, swapped_a(old, inner, 8), swapped_a(old, kQwen, 8)});
  CHECK(reading(alphabetical, "", 1) ==
        Reading{false, natural_a(alphabetical, kQwen), natural_a(alphabetical, inner)});
  SUBCASE("even where one of the two is square") {
    const MadeAdapter wide = qwen({8, 8}, {4, 8}), narrow = qwen({8, 16}, {8, 8});  // 2I = H, I = H
    CHECK(reading(wide, "", 1) == Reading{false, natural_a(wide, inner), natural_a(wide, kQwen)});
    CHECK(reading(narrow, "", 1) ==
          Reading{false, natural_a(narrow, inner), natural_a(narrow, kQwen)});
  }
  SUBCASE("or cannot be two parameters of one layer") {
    const MadeAdapter made = qwen({64, 50}, {24, 64});
    CHECK(fault(made, "") ==
          a_name(inner) +
              " [16, 64] and lora_B [50, 16]: no reading of the pairs of a layer as gate_up "
              "[2I, H] and down [H, I] fits");
    CHECK(hint(made, "") == "name the base model with --base");
  }
}

TEST_CASE("a lone pair without a base model is what target_parameters says") {
  const auto lone = [](const std::string& targets, int64_t a, int64_t b) {
    return Stacks{8, config(R"(, "target_parameters": )" + targets)}.pair(kQwen, a, b).made;
  };
  CHECK(reading(lone(R"(["mlp.experts.gate_up_proj"])", 64, 48), "", 1, kNatural).down == 0);
  CHECK(reading(lone(R"(["mlp.experts.down_proj"])", 24, 64), "", 1, kNatural).first == 0);
  SUBCASE("which names neither") {
    const MadeAdapter made = lone("null", 64, 48);
    CHECK(fault(made, "", kNatural) ==
          a_name(kQwen) +
              " [16, 64] and lora_B [48, 16]: a lone stacked pair may be gate_up_proj "
              "or down_proj, and neither shapes nor target_parameters say which");
    CHECK(hint(made, "", kNatural) ==
          "name the base model with --base, or put the parameter into target_parameters of "
          "adapter_config.json");
  }
  SUBCASE("which names both") {
    CHECK(!fault(lone(R"(["experts.gate_up_proj", "experts.down_proj"])", 64, 48), "", kNatural)
               .empty());
  }
  SUBCASE("an odd number of rows cannot be gate_up") {
    const MadeAdapter made = lone("null", 64, 47);
    CHECK(reading(made, "", 1, kNatural) == Reading{false, 0, natural_a(made, kQwen)});
  }
}

TEST_CASE("where both sides look the same, the side of lora_A is asked for") {
  const MadeAdapter made =
      Stacks{8, config(R"(, "target_parameters": ["experts.down_proj"])")}.pair(kQwen, 24, 64).made;
  const std::string flags = "say --roles natural (A over the input: ";
  CHECK(fault(made, "") == a_name(kQwen) +
                               " [16, 24] and lora_B [64, 16]: without the base model, lora_A may "
                               "lie on the input or on the output");
  CHECK(hint(made, "").starts_with("name the base model with --base, or " + flags));
  SUBCASE("with a base model that does not decide") {
    const MadeAdapter up =
        Stacks{4}.pair(kNemotron + ".base_layer", 24, 64).pair(kNemotron, 64, 24).made;
    CHECK(fault(up, "nemotron_h") ==
          a_name(kNemotron + ".base_layer") +
              " [8, 24] and lora_B [64, 8]: the shapes are the same with "
              "A on the input and with A on the output");
    CHECK(hint(up, "nemotron_h").starts_with(flags));
  }
  SUBCASE("with the flag it is read either way") {
    CHECK(reading(made, "", 1, kNatural) == Reading{false, 0, natural_a(made, kQwen)});
    CHECK(reading(made, "", 1, kSwapped) == Reading{true, 0, swapped_a(made, kQwen, 8)});
  }
  SUBCASE("our own marker decides, the flag wins over it") {
    const MadeAdapter marked =
        Stacks{
            8,
            config(
                R"(, "target_parameters": ["experts.down_proj"], "moelora": {"roles": "swapped"})")}
            .pair(kQwen, 24, 64)
            .made;
    CHECK(reading(marked, "", 1).swapped);
    CHECK(!reading(marked, "", 1, kNatural).swapped);
  }
  SUBCASE("the PEFT version is reported, since it is a hint") {
    const MadeAdapter versioned =
        Stacks{8,
               config(R"(, "target_parameters": ["experts.down_proj"], "peft_version": "0.18.1")")}
            .pair(kQwen, 24, 64)
            .made;
    CHECK(fault(versioned, "").ends_with("or on the output; it was saved by PEFT 0.18.1"));
  }
}

TEST_CASE("dims that contradict a flag or the base model are reported with the base's own") {
  const MadeAdapter made = qwen({64, 48}, {24, 64});
  CHECK(fault(made, "qwen3_moe", kSwapped) ==
        a_name(kQwen + ".base_layer") +
            " [16, 64] and lora_B [48, 16]: fits no expert parameter of this base model: "
            "gate_up_proj is 64 -> 48, "
            "down_proj is 24 -> 64 (with --roles swapped)");
  CHECK(hint(made, "qwen3_moe", kSwapped) == "check --base and --roles");
  CHECK(fault(qwen({64, 50}, {24, 64}), "qwen3_moe")
            .ends_with("gate_up_proj is 64 -> 48, down_proj is 24 -> 64"));
  SUBCASE("a marker that the dims contradict does not win") {
    const MadeAdapter marked = qwen({64, 48}, {24, 64}, R"(, "moelora": {"roles": "swapped"})");
    CHECK(!reading(marked, "qwen3_moe", 1).swapped);
  }
  SUBCASE("one layer this way, one the other is not a file") {
    Stacks stacks{8};
    stacks.pair(kQwen, 64, 48).pair("model.layers.2.mlp.experts", 48, 64);
    CHECK(!fault(stacks.made, "qwen3_moe").empty());
  }
}

TEST_CASE("without a gate the pairs are up and down, which have each other's shapes") {
  const std::string inner = kNemotron + ".base_layer";
  SUBCASE("as PEFT writes them today") {
    const MadeAdapter made = Stacks{4}.pair(inner, 64, 24).pair(kNemotron, 24, 64).made;
    CHECK(reading(made, "nemotron_h", 1) ==
          Reading{false, natural_a(made, inner), natural_a(made, kNemotron)});
  }
  const MadeAdapter other = Stacks{4}.pair(inner, 24, 64).pair(kNemotron, 64, 24).made;
  SUBCASE("the other way round may be old PEFT or parametrized experts, and is asked for") {
    CHECK(fault(other, "nemotron_h").find("the shapes are the same") != std::string::npos);
  }
  SUBCASE("old PEFT, said with a flag") {
    CHECK(reading(other, "nemotron_h", 1, kSwapped) ==
          Reading{true, swapped_a(other, inner, 4), swapped_a(other, kNemotron, 4)});
  }
  SUBCASE("parametrized experts, said with a flag") {
    CHECK(reading(other, "nemotron_h", 1, kNatural) ==
          Reading{false, natural_a(other, kNemotron), natural_a(other, inner)});
  }
  SUBCASE("a lone pair of the dims of both") {
    const MadeAdapter lone = Stacks{4}.pair(kNemotron, 64, 24).made;
    CHECK(fault(lone, "nemotron_h").find("may be up_proj or down_proj") != std::string::npos);
    CHECK(reading(lone, "nemotron_h", 1, kNatural) ==
          Reading{false, natural_a(lone, kNemotron), 0});
  }
}

TEST_CASE("a stacked pair that is not whole is refused") {
  Stacks stacks{4};
  stacks.pair(kOss + ".base_layer", 64, 96).pair(kOss, 48, 64);
  REQUIRE(fault(stacks.made, "gpt_oss").empty());
  const std::string inner = kOss + ".base_layer";
  SUBCASE("no lora_B") {
    const MadeAdapter made = stacks.made.remove(b_name(inner));
    CHECK(fault(made, "gpt_oss") == a_name(inner) + ": has no lora_B beside it");
    CHECK(hint(made, "gpt_oss") == "the file is incomplete: save the adapter again");
  }
  SUBCASE("no lora_A") {
    CHECK(fault(stacks.made.remove(a_name(inner)), "gpt_oss") ==
          b_name(inner) + ": has no lora_A beside it");
  }
  SUBCASE("E*r of A and of B differ") {
    const MadeAdapter made = stacks.made.add(b_name(inner), {96, 12});
    CHECK(fault(made, "gpt_oss") ==
          a_name(inner) +
              " [8, 64] and lora_B [96, 12]: 8 rows of lora_A and 12 columns of lora_B, "
              "expected E*r of both");
  }
  SUBCASE("the same factor twice") {
    const MadeAdapter made = stacks.made.add("model.layers.0.mlp.experts.lora_A.weight", {8, 48});
    CHECK(fault(made, "gpt_oss") ==
          "model.layers.0.mlp.experts.lora_A.weight: names the same factor as " + a_name(kOss));
    CHECK(hint(made, "gpt_oss") == "keep one of them");
  }
  SUBCASE("expert biases are targeted too") {
    const MadeAdapter made = stacks.pair(inner + ".base_layer", 4, 96)
                                 .pair(inner + ".base_layer.base_layer", 4, 64)
                                 .made;
    CHECK(fault(made, "gpt_oss") ==
          a_name(inner) + ": more than two expert parameters are targeted (expert biases?)");
    CHECK(hint(made, "gpt_oss") ==
          "name in target_parameters what each pair is of, and the base model with --base");
  }
}
