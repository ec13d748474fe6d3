// A file that cannot be read for what it is is refused with where, what and how to fix it. Names
// and layouts: detect_test.cpp; the pairs of PEFT's parameters: stacked_pairs_test.cpp.

#include <doctest/doctest.h>

#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

using Values = std::vector<float>;

const std::string kLayer = "model.layers.1.mlp.experts.", kFirst = "model.layers.0.mlp.experts.";

std::string fault(const MadeAdapter& made, const std::string& family = "") {
  return error_text([&] { made.read(family); });
}

std::string hint(const MadeAdapter& made, const std::string& family = "") {
  return error_hint([&] { made.read(family); });
}

MadeAdapter with(const std::string& more) {
  return MadeAdapter(R"({"r": 2, "lora_alpha": 4)" + more + "}");
}

// qwen3_moe, experts 0 and 3 of layer 1.
MadeAdapter numbered() {
  MadeAdapter made;
  for (const char* e : {"0.", "3."})
    made.pair(kLayer + e + "gate_proj", {2, 64}, {24, 2})
        .pair(kLayer + e + "up_proj", {2, 64}, {24, 2})
        .pair(kLayer + e + "down_proj", {2, 24}, {64, 2});
  return made;
}

}  // namespace

TEST_CASE("a factor without its other side is named") {
  REQUIRE(fault(numbered(), "qwen3_moe").empty());
  const std::string incomplete = "the file is incomplete: save the adapter again";
  SUBCASE("one expert's lora_B") {
    const MadeAdapter made = numbered().remove(b_name(kLayer + "3.up_proj"));
    CHECK(fault(made, "qwen3_moe") ==
          "layer 1, expert 3, up_proj, lora_A: has no lora_B beside it");
    CHECK(hint(made, "qwen3_moe") == incomplete);
  }
  SUBCASE("one expert's lora_A") {
    CHECK(fault(numbered().remove(a_name(kLayer + "0.down_proj")), "qwen3_moe") ==
          "layer 1, expert 0, down_proj, lora_B: has no lora_A beside it");
  }
  SUBCASE("a projection's lora_A for all experts") {
    MadeAdapter made;
    made.add(b_name(kLayer + "gate_proj"), {8, 24, 2});
    CHECK(fault(made, "qwen3_moe") == b_name(kLayer + "gate_proj") + ": has no lora_A beside it");
  }
  SUBCASE("a projection's lora_B for all experts") {
    MadeAdapter made;
    made.add(a_name(kLayer + "gate_proj"), {8, 2, 64});
    CHECK(fault(made, "qwen3_moe") == a_name(kLayer + "gate_proj") + ": has no lora_B beside it");
    CHECK(hint(made, "qwen3_moe") == incomplete);
  }
  SUBCASE("a Linear's") {
    MadeAdapter made;
    made.add(a_name("model.layers.0.self_attn.q_proj"), {2, 64});
    CHECK(fault(made) == a_name("model.layers.0.self_attn.q_proj") + ": has no lora_B beside it");
    CHECK(hint(made) == incomplete);
  }
}

TEST_CASE("an expert that the model does not have is named with the number it has") {
  SUBCASE("with a base model") {
    const MadeAdapter made = numbered().pair(kLayer + "8.up_proj", {2, 64}, {24, 2});
    CHECK(fault(made, "qwen3_moe") ==
          a_name(kLayer + "8.up_proj") + ": names expert 8, expected one below 8");
  }
  SUBCASE("without one a huge index is none") {
    const MadeAdapter made = numbered().pair(kLayer + "999999999.up_proj", {2, 64}, {24, 2});
    CHECK(fault(made) == a_name(kLayer + "999999999.up_proj") +
                             ": names expert 999999999, expected one below 65536");
  }
  SUBCASE("nor do many large ones take memory") {
    MadeAdapter made;
    for (int layer = 0; layer < 64; ++layer)
      made.pair("model.layers." + std::to_string(layer) + ".mlp.experts.65535.up_proj", {2, 4},
                {6, 2});
    CHECK(fault(made).find("more than 4194304 factors of experts") != std::string::npos);
    CHECK(hint(made) == "name the base model with --base");
  }
  SUBCASE("nor one tensor of a million experts") {
    MadeAdapter made;
    made.add(a_name(kLayer + "up_proj"), {1 << 20, 1, 1});
    CHECK(fault(made) ==
          a_name(kLayer + "up_proj") + ": holds 1048576 experts, expected at most 65536");
  }
}

TEST_CASE("3-D tensors hold all experts, not an expert-parallel rank's part") {
  MadeAdapter made;
  made.pair(kLayer + "gate_proj", {4, 2, 64}, {4, 24, 2});
  CHECK(fault(made, "qwen3_moe") ==
        a_name(kLayer + "gate_proj") + ": has 4 experts, the base model 8");
  CHECK(hint(made, "qwen3_moe").starts_with("an expert-parallel rank's part saved as the whole?"));
  SUBCASE("nor more") {
    MadeAdapter more;
    more.pair(kLayer + "gate_proj", {16, 2, 64}, {16, 24, 2});
    CHECK(fault(more, "qwen3_moe") ==
          a_name(kLayer + "gate_proj") + ": has 16 experts, the base model 8");
  }
  SUBCASE("nor one number here and another there") {
    made.pair(kFirst + "gate_proj", {8, 2, 64}, {8, 24, 2});
    CHECK(fault(made) == a_name(kLayer + "gate_proj") + ": has 4 experts, other tensors 8");
  }
  SUBCASE("in PEFT's parameters: E*r rows") {
    MadeAdapter params;
    params.pair("model.layers.1.mlp.experts", {12, 64}, {48, 12});
    CHECK(fault(params, "qwen3_moe") ==
          a_name("model.layers.1.mlp.experts") +
              ": has 12 rows, not a multiple of the 8 experts of the base model");
    CHECK(hint(params, "qwen3_moe") ==
          "an expert-parallel rank's part saved as the whole? check r and --base");
  }
  SUBCASE("matrices for all experts alone do not say how many there are") {
    MadeAdapter shared;
    shared.pair(kLayer + "w1", {1, 2, 64}, {1, 24, 2});
    CHECK(fault(shared) == a_name(kLayer + "w1") +
                               ": every expert factor of this file is one matrix for all experts, "
                               "and nothing says how many "
                               "there are");
    CHECK(shared.read("qwen3_moe").adapter.expert_count == 8);
  }
}

TEST_CASE("ranks agree with each other and with the config") {
  SUBCASE("A and B of an expert") {
    const MadeAdapter made = numbered().add(b_name(kLayer + "3.up_proj"), {24, 3});
    CHECK(fault(made, "qwen3_moe") ==
          a_name(kLayer + "0.up_proj") +
              ": rank 2 of lora_A [2, 64] differs from rank 3 of lora_B [24, 3]");
  }
  SUBCASE("A and B of a Linear") {
    MadeAdapter made;
    made.pair("model.layers.0.self_attn.q_proj", {2, 64}, {64, 4});
    CHECK(fault(made) == a_name("model.layers.0.self_attn.q_proj") +
                             ": rank 2 of lora_A [2, 64] differs from rank 4 of lora_B [64, 4]");
  }
  SUBCASE("an expert's and the config's") {
    MadeAdapter made;
    made.pair(kLayer + "0.gate_proj", {4, 64}, {24, 4});
    CHECK(fault(made, "qwen3_moe") ==
          a_name(kLayer + "0.gate_proj") +
              ": rank 4 for model.layers.1.mlp.experts.0.gate_proj, but "
              "adapter_config.json says 2");
    CHECK(hint(made, "qwen3_moe") ==
          "set \"r\" or a rank_pattern entry to 4: the scale alpha/r depends on it");
  }
  SUBCASE("a parameter's and the config's, by the parameter's path") {
    MadeAdapter made = with(R"(, "rank_pattern": {"experts.gate_up_proj": 4})");
    made.pair("model.layers.1.mlp.experts", {16, 64}, {48, 16});
    CHECK(fault(made, "qwen3_moe") ==
          a_name("model.layers.1.mlp.experts") +
              ": rank 2 for model.layers.1.mlp.experts.gate_up_proj, but "
              "adapter_config.json says 4");
  }
  SUBCASE("a Linear's and the config's") {
    MadeAdapter made;
    made.pair("model.layers.0.self_attn.q_proj", {4, 64}, {64, 4});
    CHECK(fault(made) == a_name("model.layers.0.self_attn.q_proj") +
                             ": has rank 4, but adapter_config.json says 2");
    CHECK(hint(made) == "set \"r\" or a rank_pattern entry to 4: the scale alpha/r depends on it");
  }
}

TEST_CASE("an empty or misshapen factor is what a broken save leaves") {
  const std::string broken = "an empty factor is what an ungathered ZeRO-3 or FSDP save leaves";
  const auto check = [&](const std::string& module, const Shape& shape, const std::string& shown) {
    CAPTURE(module);
    MadeAdapter made;
    made.add(a_name(module), shape).add(b_name(module), {24, 2});
    CHECK(fault(made) == a_name(module) + ": has shape " + shown + ", expected two dims");
    CHECK(hint(made) == broken);
  };
  check("model.layers.0.self_attn.q_proj", {0}, "[0]");
  check("model.layers.0.self_attn.q_proj", {0, 64}, "[0, 64]");
  check(kLayer + "0.gate_proj", {0, 64}, "[0, 64]");
  SUBCASE("three dims of a Linear") {
    MadeAdapter made;
    made.pair("model.layers.0.self_attn.q_proj", {1, 2, 64}, {64, 2});
    CHECK(fault(made).ends_with("has shape [1, 2, 64], expected two dims"));
    CHECK(hint(made).empty());
  }
  SUBCASE("nothing but empty experts") {
    MadeAdapter made;
    made.pair(kLayer + "w3", {0, 2, 64}, {0, 24, 2});
    CHECK(error_text([&] { made.read("qwen3_moe", {}, "stacked"); }) == "experts: hold no element");
  }
}

TEST_CASE("factors fit the base model") {
  SUBCASE("a layer without routed experts") {
    MadeAdapter made;
    made.pair(kFirst + "0.gate_proj", {2, 64}, {24, 2});
    CHECK(fault(made, "qwen3_moe") ==
          a_name(kFirst + "0.gate_proj") + ": layer 0 of this base model has no routed experts");
    CHECK(hint(made, "qwen3_moe") ==
          "check that --base names the model this adapter was trained on");
    MadeAdapter beyond;
    beyond.pair("model.layers.3.mlp.experts.0.gate_proj", {2, 64}, {24, 2});
    CHECK(fault(beyond, "qwen3_moe").ends_with("layer 3 of this base model has no routed experts"));
  }
  SUBCASE("an input that is not the base's") {
    MadeAdapter made;
    made.pair(kLayer + "5.gate_proj", {2, 65}, {24, 2});
    CHECK(fault(made, "qwen3_moe") ==
          a_name(kLayer + "5.gate_proj") +
              ": expert 5 has shape [2, 65], expected 64 columns for gate_proj of this base model");
  }
  SUBCASE("an output that is not the base's") {
    MadeAdapter made;
    made.pair(kLayer + "down_proj", {8, 2, 24}, {8, 60, 2});
    CHECK(fault(made, "qwen3_moe") ==
          b_name(kLayer + "down_proj") +
              ": expert 0 has shape [60, 2], expected 64 rows for down_proj of this base model");
  }
  SUBCASE("a Linear's") {
    MadeAdapter made;
    made.pair("model.layers.0.self_attn.q_proj", {2, 64}, {60, 2});
    CHECK(fault(made, "qwen3_moe") ==
          a_name("model.layers.0.self_attn.q_proj") +
              ": adapts 64 -> 60, but model.layers.0.self_attn.q_proj of this base "
              "model is 64 -> 64");
    CHECK(hint(made, "qwen3_moe") ==
          "check that --base names the model this adapter was trained on");
  }
  SUBCASE("an expert projection that it does not have") {
    MadeAdapter made;
    made.pair("model.layers.1.mixer.experts.0.gate_proj", {2, 64}, {24, 2});
    CHECK(fault(made, "nemotron_h") == "");  // SGLang's name of its up_proj
    made.pair("model.layers.1.mixer.experts.0.up_proj", {2, 64}, {24, 2});
    CHECK(fault(made, "nemotron_h") == a_name("model.layers.1.mixer.experts.0.gate_proj") +
                                           ": the experts of this base model have no gate_proj");
    CHECK(hint(made, "nemotron_h") ==
          "check that --base names the model this adapter was trained on");
  }
}

TEST_CASE("a factor is there once") {
  SUBCASE("not in two spellings of an expert's name") {
    const MadeAdapter made = numbered().pair(kLayer + "0.w1", {2, 64}, {24, 2});
    CHECK(fault(made, "qwen3_moe") ==
          a_name(kLayer + "0.w1") + ": is a second lora_A of layer 1, expert 0, gate_proj");
    CHECK(hint(made, "qwen3_moe") == "keep one spelling of this tensor");
  }
  SUBCASE("not in two spellings of a stacked name") {
    MadeAdapter made;
    made.pair(kLayer + "gate_proj", {8, 2, 64}, {8, 24, 2})
        .pair(kLayer + "w1", {8, 2, 64}, {8, 24, 2});
    CHECK(fault(made, "qwen3_moe") ==
          a_name(kLayer + "w1") + ": is a second lora_A of layer 1, gate_proj");
  }
  SUBCASE("not with PEFT's prefix and without") {
    MadeAdapter made;
    made.pair("model.layers.0.self_attn.q_proj", {2, 64}, {64, 2})
        .add("model.layers.0.self_attn.q_proj.lora_A.weight", {2, 64});
    CHECK(fault(made) ==
          "model.layers.0.self_attn.q_proj.lora_A.weight: names the same factor as " +
              a_name("model.layers.0.self_attn.q_proj"));
  }
  SUBCASE("nor another tensor with the prefix and without") {
    MadeAdapter made;
    made.pair("lm_head", {2, 64}, {160, 2})
        .add("model.norm.weight", {64})
        .add("base_model.model.model.norm.weight", {64});
    CHECK(fault(made) == "model.norm.weight: is there with and without \"base_model.model.\"");
  }
  SUBCASE("not under two names of the family") {
    MadeAdapter made;
    made.pair("model.layers.0.self_attn.q_proj", {2, 64}, {64, 2})
        .pair("model.layers.0.attn.q_proj", {2, 64}, {64, 2});
    CHECK(fault(made).empty());
    CHECK(fault(made, "gpt_oss") == a_name("model.layers.0.self_attn.q_proj") +
                                        ": names the same factor as " +
                                        a_name("model.layers.0.attn.q_proj"));
  }
  SUBCASE("not under two paths of experts") {
    const MadeAdapter made =
        numbered().pair("model.layers.2.block_sparse_moe.experts.0.w1", {2, 64}, {24, 2});
    CHECK(fault(made) == a_name("model.layers.2.block_sparse_moe.experts.0.w1") +
                             ": lies under model.layers.{layer}.block_sparse_moe.experts, other "
                             "experts under model.layers.{layer}.mlp.experts");
    CHECK(hint(made) == "one adapter has one expert module path; split the file");
  }
}

TEST_CASE("what else LoRA can be on an expert has no place in any layout") {
  const std::string expert = "base_model.model." + kLayer + "0.gate_proj.";
  for (const std::string part :
       {"lora_B.bias", "lora_magnitude_vector", "base_layer.weight", "weight"}) {
    CAPTURE(part);
    const MadeAdapter made = numbered().add(expert + part, {24});
    CHECK(
        fault(made, "qwen3_moe") ==
        expert + part +
            ": belongs to a routed expert but is neither lora_A nor lora_B: no layout can hold it");
    CHECK(hint(made, "qwen3_moe") ==
          "train without lora_bias, DoRA and saved modules on the experts");
  }
  SUBCASE("beside experts it is kept") {
    const MadeAdapter made =
        numbered().add("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias", {64});
    const Conversion c = made.convert("stacked", "qwen3_moe");
    CHECK(c.tensors.count("base_model.model.model.layers.0.self_attn.q_proj.lora_B.bias") == 1);
  }
}

TEST_CASE("the order of an Unsloth file's lora_B is asked for where it matters") {
  const auto unsloth = [](const std::string& more, int64_t experts, int64_t rank) {
    MadeAdapter made(R"({"r": )" + std::to_string(rank) +
                     R"(, "lora_alpha": 4, "base_model_name_or_path": "unsloth/gpt-oss-20b")" +
                     more + "}");
    made.pair("model.layers.0.mlp.experts.base_layer", {experts * rank, 64}, {96, experts * rank})
        .pair("model.layers.0.mlp.experts", {experts * rank, 48}, {64, experts * rank});
    return made;
  };
  const MadeAdapter made = unsloth("", 4, 2);
  CHECK(
      fault(made, "gpt_oss") ==
      "adapter_config.json: the base model is \"unsloth/gpt-oss-20b\" and there is no "
      "\"lora_B_layout\": Unsloth "
      "wrote the columns of a stacked lora_B in either order, and nothing in the file says which");
  CHECK(hint(made, "gpt_oss") ==
        "say --b-order rank-major (PEFT, and Unsloth since 2026-09-17) or --b-order expert-major "
        "(Unsloth before "
        "that)");
  SUBCASE("not with the flag") {
    CHECK(error_text([&] { made.read("gpt_oss", {BOrder::expert_major, {}}); }).empty());
  }
  SUBCASE("not with a marker") {
    CHECK(fault(unsloth(R"(, "lora_B_layout": "rank_major")", 4, 2), "gpt_oss").empty());
    CHECK(fault(unsloth(R"(, "moelora": {"b_order": "expert-major"})", 4, 2), "gpt_oss").empty());
  }
  SUBCASE("not for one expert or rank 1, where both orders are one") {
    CHECK(fault(unsloth("", 1, 2)).empty());
    CHECK(fault(unsloth("", 4, 1), "gpt_oss").empty());
  }
  SUBCASE("but for the one pair of a higher rank") {
    MadeAdapter mixed(R"({"r": 1, "lora_alpha": 4, "base_model_name_or_path": "unsloth/gpt-oss-20b",
        "rank_pattern": {"experts.down_proj": 2}})");
    mixed.pair("model.layers.0.mlp.experts.base_layer", {4, 64}, {96, 4})
        .pair("model.layers.0.mlp.experts", {8, 48}, {64, 8});
    CHECK(!fault(mixed, "gpt_oss").empty());
  }
  SUBCASE("another base model is read as PEFT writes, and that is noted") {
    MadeAdapter plain;
    plain.pair("model.layers.0.mlp.experts.base_layer", {8, 64}, {96, 8})
        .pair("model.layers.0.mlp.experts", {8, 48}, {64, 8});
    const LoadedAdapter loaded = plain.read("gpt_oss");
    REQUIRE(loaded.notes.size() == 1);
    CHECK(loaded.notes[0].starts_with(
        "the order of the columns of lora_B is not marked: read as PEFT writes it"));
  }
}

TEST_CASE("a name with an empty part is refused: it would not be found again in the output") {
  for (const char* name :
       {".lora_A.weight", ".lora_embedding_A", "...lora_A.weight", ".q_proj.lora_A.weight",
        "model..q_proj.lora_A.weight", "q_proj..lora_A.weight", "base_model.model..lora_A.weight",
        "", ".", "..", ".norm.weight", "model..weight", "base_model.model."}) {
    MadeAdapter made;
    made.pair("model.layers.0.self_attn.q_proj", {2, 64}, {96, 2}).add(name, {2, 64});
    CAPTURE(name);
    CHECK(fault(made).ends_with(
        "has an empty part between its dots, which no module of a model has"));
  }
}

TEST_CASE("a marker, a flag or the default decide which column of lora_B is whose") {
  const auto column = [](const std::string& marker, const ReadOptions& options) {
    MadeAdapter made = with(marker);
    made.pair("model.layers.0.mlp.experts.base_layer", {8, 64}, {96, 8})
        .pair("model.layers.0.mlp.experts", {8, 48}, {64, 8});
    const Adapter adapter = made.read("gpt_oss", options).adapter;
    const Values b =
        floats(adapter.experts.at({0, Projection::down}).b.at(1));  // [64, 2] of expert 1
    const float first = floats(made.tensors().at(b_name("model.layers.0.mlp.experts")))[0];
    return std::pair{b[0] - first, b[1] - first};  // columns of k = 0 and 1
  };
  using Columns = std::pair<float, float>;
  const Columns rank_major{1, 5}, expert_major{2, 3};  // k*4 + 1; 1*2 + k
  CHECK(column("", {}) == rank_major);
  CHECK(column("", {BOrder::expert_major, {}}) == expert_major);
  CHECK(column(R"(, "lora_B_layout": "grouped_by_expert")", {}) == expert_major);
  CHECK(column(R"(, "lora_B_layout": "rank_major")", {}) == rank_major);
  CHECK(column(R"(, "moelora": {"b_order": "expert-major"})", {}) == expert_major);
  CHECK(column(R"(, "lora_B_layout": "grouped_by_expert")", {BOrder::rank_major, {}}) ==
        rank_major);
}
