// Experts as Megatron-Bridge (shared outer factors), xorl, NeMo AutoModel and PEFT on old
// GraniteMoE write them: literal rows and what they become; refusals; one pair for all experts.

#include <doctest/doctest.h>

#include "lib/adapter/layout.h"
#include "lib/base/error.h"
#include "tests/adapter/dialect_rows.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kStem = "model.layers.1.mlp.experts";

// gate: A for all, B for each of two experts; down the reverse.
MadeAdapter mixed(const std::string& shared, const Shape& a, const Shape& b) {
  MadeAdapter made;
  made.add(a_name(kStem + shared + ".gate_proj"), a).add(b_name(kStem + shared + ".down_proj"), b);
  for (const char* e : {".0", ".1"})
    made.add(b_name(kStem + e + ".gate_proj"), {24, 2})
        .add(a_name(kStem + e + ".down_proj"), {2, 24});
  return made;
}

std::string id_of(const TensorMap& tensors) {
  const Dialect* dialect = detect_dialect(tensors, {});
  return dialect == nullptr ? "" : std::string(dialect->id);
}

}  // namespace

TEST_CASE("Megatron-Bridge's shared outer factors become one stack a projection") {
  for (const bool two_dims : {false, true}) {
    const MadeAdapter made =
        two_dims ? mixed("", {2, 64}, {64, 2}) : mixed("", {1, 2, 64}, {1, 64, 2});
    CHECK(id_of(made.tensors()) == "mixed-shared");
    const TensorMap out = translated("mixed-shared", made.tensors()).tensors;
    CHECK(names_of(out) ==
          std::vector<std::string>{a_name(kStem + ".down_proj"), b_name(kStem + ".down_proj"),
                                   a_name(kStem + ".gate_proj"), b_name(kStem + ".gate_proj")});
    CHECK(out.at(a_name(kStem + ".gate_proj")).shape() == Shape{1, 2, 64});
    CHECK(out.at(b_name(kStem + ".gate_proj")).shape() == Shape{2, 24, 2});
    CHECK(out.at(a_name(kStem + ".down_proj")).shape() == Shape{2, 2, 24});
    CHECK(out.at(b_name(kStem + ".down_proj")).shape() == Shape{1, 64, 2});
    CHECK(floats(out.at(b_name(kStem + ".gate_proj")).select(0, 1)) ==
          floats(made.tensors().at(b_name(kStem + ".1.gate_proj"))));
  }
}

TEST_CASE("what other layouts hold is not taken for mixed") {
  MadeAdapter numbered, stacked, outer, both;
  numbered.pair(kStem + ".0.gate_proj", {2, 64}, {24, 2});
  stacked.pair(kStem + ".gate_proj", {8, 2, 64}, {8, 24, 2});
  outer.pair(kStem + ".w1", {1, 2, 64}, {8, 24, 2});
  both.pair(kStem + ".gate_proj", {1, 2, 64}, {8, 24, 2})
      .pair(kStem + ".0.gate_proj", {2, 64}, {24, 2});
  for (const MadeAdapter* made : {&numbered, &stacked, &outer, &both})
    CHECK(id_of(made->tensors()).empty());
}

TEST_CASE("a mixed file without one expert is refused") {
  MadeAdapter made = mixed("", {1, 2, 64}, {1, 64, 2});
  made.remove(b_name(kStem + ".0.gate_proj"));
  CHECK(refused("mixed-shared", made.tensors()) ==
        b_name(kStem + ".1.gate_proj") +
            ": is of expert 1 of model.layers.1.mlp.experts.gate_proj, and that of expert 0 is not "
            "there");
}

TEST_CASE("a mixed file's count of experts is checked with a base model, and else said not to be") {
  const MadeAdapter made = mixed("", {1, 2, 64}, {1, 64, 2});
  CHECK(translated("mixed-shared", made.tensors()).notes ==
        std::vector<std::string>{"without a base model, the highest number says that there are 2 "
                                 "experts: whether the last ones are missing is not checked"});
  const TempFolder temp;
  made.write(temp.path("a"));
  LoadOptions options;
  options.base = MOELORA_TEST_DATA "/catalogue/qwen3_moe";
  CHECK(error_text([&] {
          load_adapter(temp.path("a"), options);
        }).find("has 2 experts, the base model 8") != std::string::npos);
}

TEST_CASE("experts of a mixed file have one shape") {
  MadeAdapter made = mixed("", {1, 2, 64}, {1, 64, 2});
  made.add(b_name(kStem + ".1.gate_proj"), {24, 3});
  CHECK(refused("mixed-shared", made.tensors()) ==
        b_name(kStem + ".1.gate_proj") +
            ": has shape [24, 3], expected two dims, [24, 2] as those of " +
            b_name(kStem + ".0.gate_proj"));
}

TEST_CASE("experts of a mixed file have one dtype") {
  MadeAdapter made = mixed("", {1, 2, 64}, {1, 64, 2});
  const std::string odd = b_name(kStem + ".1.gate_proj");
  made.set(odd, Tensor::zeros(DType::BF16, made.tensors().at(odd).shape()));
  CHECK(refused("mixed-shared", made.tensors()) ==
        odd + ": is BF16, and " + b_name(kStem + ".0.gate_proj") + " is F32");
}

TEST_CASE("an expert's own alpha has no place beside a factor for all") {
  const MadeAdapter made = mixed("", {1, 2, 64}, {1, 64, 2});
  const auto with = [](const std::string& pattern) {
    return R"({"r": 2, "lora_alpha": 4, "alpha_pattern": {")" + pattern + R"(": 6}})";
  };
  CHECK(refused("mixed-shared", made.tensors(), nullptr, with("gate_proj")).empty());
  CHECK(refused("mixed-shared", made.tensors(), nullptr, with("experts.1.gate_proj")) ==
        b_name(kStem + ".1.gate_proj") +
            ": has alpha 6 by alpha_pattern, model.layers.1.mlp.experts.gate_proj has 4");
}

TEST_CASE("gate and up of one expert joined beside a factor for all is refused") {
  MadeAdapter made;
  made.add(a_name(kStem + ".gate_up_proj"), {1, 2, 64})
      .add(b_name(kStem + ".0.gate_up_proj"), {48, 2});
  CHECK(refused("mixed-shared", made.tensors()) ==
        b_name(kStem + ".0.gate_up_proj") +
            ": joins gate and up of one expert in a file with factors for all, a form that no "
            "trainer is known to write: the order of their rows is not known");
}

TEST_CASE("xorl's token shared is a factor for all") {
  const MadeAdapter made = mixed(".shared", {2, 64}, {64, 2});
  CHECK(id_of(made.tensors()) == "xorl");
  const TensorMap out = translated("xorl", made.tensors()).tensors;
  CHECK(out.at(a_name(kStem + ".gate_proj")).shape() == Shape{1, 2, 64});
  CHECK(out.at(b_name(kStem + ".down_proj")).shape() == Shape{1, 64, 2});
  CHECK(floats(out.at(b_name(kStem + ".down_proj"))) ==
        floats(made.tensors().at(b_name(kStem + ".shared.down_proj"))));
}

TEST_CASE("xorl's stacks in memory are transposed, its lm_head is a Linear") {
  MadeAdapter made;
  made.add(kStem + ".gate_proj_lora_A", {8, 64, 2})
      .add(kStem + ".gate_proj_lora_B", {8, 2, 24})
      .add("model.layers.1.self_attn.q_proj.lora_A", {2, 64})
      .add("base_model.model.lm_head.lora_embedding_A", {2, 64});
  CHECK(id_of(made.tensors()) == "xorl");
  const TensorMap out = translated("xorl", made.tensors()).tensors;
  CHECK(names_of(out) == std::vector<std::string>{a_name("lm_head"), a_name(kStem + ".gate_proj"),
                                                  b_name(kStem + ".gate_proj"),
                                                  "model.layers.1.self_attn.q_proj.lora_A"});
  CHECK(out.at(a_name(kStem + ".gate_proj")).shape() == Shape{8, 2, 64});
  CHECK(floats(out.at(b_name(kStem + ".gate_proj"))) ==
        floats(made.tensors().at(kStem + ".gate_proj_lora_B").transpose(1, 2)));
}

TEST_CASE("xorl's names are told from others") {
  for (const char* name :
       {"base_model.model.model.layers.0.mlp.experts.shared.up_proj.lora_A.weight",
        "model.layers.0.mlp.experts.down_proj_lora_B"})
    CHECK(dialect_of_name(name) == &dialects::xorl);
  for (const char* name : {"model.layers.0.mlp.shared_experts.gate_proj.lora_A.weight",
                           "model.layers.0.mlp.experts.gate_proj.lora_A",
                           "model.layers.0.mlp.experts.0.gate_proj.lora_A.weight"})
    CHECK(dialect_of_name(name) == nullptr);
}

TEST_CASE("a shared factor with experts is refused") {
  MadeAdapter made = mixed(".shared", {8, 2, 64}, {64, 2});
  CHECK(
      refused("xorl", made.tensors()) ==
      a_name(kStem + ".shared.gate_proj") +
          ": has shape [8, 2, 64], expected two dims, or three of which the first is 1: it is one "
          "matrix for all experts");
}

TEST_CASE("a stack of xorl's has three dims") {
  MadeAdapter made;
  made.add(kStem + ".gate_proj_lora_A", {64, 2});
  CHECK(refused("xorl", made.tensors()) ==
        kStem +
            ".gate_proj_lora_A: has shape [64, 2], expected three dims: xorl's experts in memory");
}

// AutoModel's swiglu: chunk(2, -1); gpt-oss' quick_geglu: [..., ::2] and [..., 1::2].
TEST_CASE("AutoModel's gate and up lie in halves, of gpt-oss in turns") {
  MadeAdapter made;
  made.add("base_model.model." + kStem + ".lora_gate_and_up_A", {4, 64, 2})
      .add("base_model.model." + kStem + ".lora_gate_and_up_B", {4, 2, 6})
      .add("base_model.model." + kStem + ".lora_down_A", {4, 3, 2})
      .add("base_model.model." + kStem + ".lora_down_B", {4, 2, 64});
  const Tensor& b = made.tensors().at("base_model.model." + kStem + ".lora_gate_and_up_B");
  for (const char* family : {"qwen3_moe", "mixtral", "gpt_oss"}) {
    CAPTURE(family);
    const BaseModel base = catalogue_base(family);
    const TensorMap out = translated("automodel", made.tensors(), &base.spec).tensors;
    CHECK(names_of(out) == std::vector<std::string>{
                               a_name(kStem + ".down_proj"), b_name(kStem + ".down_proj"),
                               a_name(kStem + ".gate_up_proj"), b_name(kStem + ".gate_up_proj")});
    CHECK(out.at(a_name(kStem + ".gate_up_proj")).shape() == Shape{4, 2, 64});
    CHECK(out.at(a_name(kStem + ".down_proj")).shape() == Shape{4, 2, 3});
    const Tensor rows = b.transpose(1, 2).select(0, 1);  // expert 1, a row a column of B
    const bool in_turns = std::string(family) == "gpt_oss";
    CHECK(floats(out.at(b_name(kStem + ".gate_up_proj")).select(0, 1)) ==
          rows_of(rows, in_turns ? std::vector<int64_t>{0, 2, 4, 1, 3, 5}
                                 : std::vector<int64_t>{0, 1, 2, 3, 4, 5}));
  }
}

TEST_CASE("AutoModel's experts without a gate are up") {
  MadeAdapter made;
  made.add("model.layers.1.mixer.experts.lora_gate_and_up_A", {4, 64, 2})
      .add("model.layers.1.mixer.experts.lora_gate_and_up_B", {4, 2, 24});
  const BaseModel base = catalogue_base("nemotron_h");
  const TensorMap out = translated("automodel", made.tensors(), &base.spec).tensors;
  CHECK(out.at(b_name("model.layers.1.mixer.experts.up_proj")).shape() == Shape{4, 24, 2});
}

TEST_CASE("AutoModel's gate and up need the base model, down does not") {
  MadeAdapter down, gate_up;
  down.add(kStem + ".lora_down_A", {4, 24, 2}).add(kStem + ".lora_down_B", {4, 2, 64});
  CHECK(translated("automodel", down.tensors()).tensors.size() == 2);
  gate_up.add(kStem + ".lora_gate_and_up_A", {4, 64, 2});
  CHECK(refused("automodel", gate_up.tensors()) ==
        kStem +
            ".lora_gate_and_up_A: holds gate and up in halves or in turns, by the family of the "
            "model");
}

TEST_CASE("a factor of AutoModel's experts has three dims") {
  MadeAdapter made;
  made.add(kStem + ".lora_down_A", {24, 2});
  CHECK(refused("automodel", made.tensors()) ==
        kStem + ".lora_down_A: has shape [24, 2], expected three dims, experts first");
}

TEST_CASE("an unknown factor in AutoModel's spelling is refused") {
  MadeAdapter made;
  made.add(kStem + ".lora_gate_A", {4, 24, 2});
  CHECK(refused("automodel", made.tensors()) ==
        kStem + ".lora_gate_A: is of \"gate\", expected gate_and_up or down");
}

TEST_CASE("in turns there is an even number of columns") {
  MadeAdapter made;
  made.add(kStem + ".lora_gate_and_up_B", {4, 2, 5});
  const BaseModel base = catalogue_base("gpt_oss");
  CHECK(refused("automodel", made.tensors(), &base.spec) ==
        kStem + ".lora_gate_and_up_B: has 5 columns, expected an even number: gate's and up's");
}

TEST_CASE("old GraniteMoE's modules become the parameters of later ones") {
  const std::string moe = "model.layers.0.block_sparse_moe";
  MadeAdapter both, lone;
  both.pair(moe + ".input_linear", {8, 64}, {96, 8}).pair(moe + ".output_linear", {8, 48}, {64, 8});
  CHECK(id_of(both.tensors()) == "granite-parallel-experts");
  CHECK(names_of(translated("granite-parallel-experts", both.tensors()).tensors) ==
        std::vector<std::string>{a_name(moe + ".experts.base_layer"),
                                 b_name(moe + ".experts.base_layer"), a_name(moe + ".experts"),
                                 b_name(moe + ".experts")});
  lone.pair(moe + ".input_linear", {8, 64}, {96, 8})
      .pair("model.layers.0.shared_mlp.input_linear", {2, 64}, {96, 2});
  CHECK(names_of(translated("granite-parallel-experts", lone.tensors()).tensors) ==
        std::vector<std::string>{a_name(moe + ".experts"), b_name(moe + ".experts"),
                                 a_name("model.layers.0.shared_mlp.input_linear"),
                                 b_name("model.layers.0.shared_mlp.input_linear")});
}

// Megatron-Bridge PR 6075: both sides lead with 1. No dialect: the layouts read it.
TEST_CASE("one pair for all experts is read by the layouts and written in each") {
  MadeAdapter made;
  made.pair(kStem + ".gate_up_proj", {1, 2, 64}, {1, 48, 2})
      .pair(kStem + ".down_proj", {1, 2, 24}, {1, 64, 2});
  CHECK(id_of(made.tensors()).empty());
  const TensorMap& in = made.tensors();
  for (const Layout* layout : all_layouts()) {
    CAPTURE(layout->id);
    const TensorMap out = made.convert(std::string(layout->id), "qwen3_moe").tensors;
    CHECK(!out.empty());
    if (layout->id != "peft-linear") continue;
    CHECK(out.size() == 8 * 3 * 2);
    for (const char* e : {".0", ".7"}) {
      CHECK(floats(out.at(a_name(kStem + e + ".up_proj"))) ==
            floats(in.at(a_name(kStem + ".gate_up_proj"))));
      CHECK(floats(out.at(b_name(kStem + e + ".up_proj"))) ==
            floats(in.at(b_name(kStem + ".gate_up_proj")).slice(1, 24, 24)));
      CHECK(floats(out.at(b_name(kStem + e + ".down_proj"))) ==
            floats(in.at(b_name(kStem + ".down_proj"))));
    }
  }
  CHECK(
      error_text([&] { made.convert("stacked"); }) ==
      a_name(kStem + ".gate_up_proj") +
          ": every expert factor of this file is one matrix for all experts, and nothing says how "
          "many there are");
}

TEST_CASE("so is one with gate and up apart") {
  MadeAdapter made;
  for (const char* word : {".gate_proj", ".up_proj"})
    made.pair(kStem + word, {1, 2, 64}, {1, 24, 2});
  made.pair(kStem + ".down_proj", {1, 2, 24}, {1, 64, 2});
  for (const Layout* layout : all_layouts()) {
    CAPTURE(layout->id);
    const TensorMap out = made.convert(std::string(layout->id), "qwen3_moe").tensors;
    if (layout->id == "stacked")
      CHECK(floats(out.at(b_name(kStem + ".up_proj")).select(0, 7)) ==
            floats(made.tensors().at(b_name(kStem + ".up_proj"))));
  }
}
