// Factors [in, r] and [r, out] under PEFT's names are told by shapes, and never from PEFT's own.

#include <doctest/doctest.h>

#include <filesystem>
#include <string>
#include <vector>

#include "tests/adapter/goldens.h"
#include "tests/adapter/translated.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;
namespace fs = std::filesystem;

namespace {

const std::string kQ = "model.layers.1.self_attn.q_proj",
                  kUp = "model.layers.1.mlp.experts.up_proj";

// r 2 in the config.
MadeAdapter one(const Shape& a, const Shape& b, const std::string& module = kQ) {
  MadeAdapter made;
  return made.pair(module, a, b);
}

bool is_transposed(const MadeAdapter& made, const std::string& family = "") {
  const AdapterFiles files = translated(made, family);
  return files.dialect != nullptr && files.dialect->id == "transposed";
}

std::string fault(const MadeAdapter& made, const std::string& family = "",
                  const std::string& from = "transposed") {
  return error_text([&] { translated(made, family, from); });
}

}  // namespace

TEST_CASE("the config's rank tells, and the pair is turned round") {
  const MadeAdapter made = one({64, 2}, {2, 32});
  const AdapterFiles files = translated(made);
  REQUIRE(files.dialect != nullptr);
  CHECK(files.dialect->id == "transposed");
  CHECK(listed(files) == kQ + ".lora_A.weight [2, 64]; " + kQ + ".lora_B.weight [32, 2]");
  const std::vector<float> was = floats(made.tensors().at(a_name(kQ))),
                           is = floats(files.tensors.at(a_name(kQ)));
  CHECK(is[64 + 5] == was[5 * 2 + 1]);  // row 1, column 5
}

TEST_CASE("stacked experts and embeddings are turned round, what is no factor stays") {
  MadeAdapter made;
  made.pair(kUp, {8, 64, 2}, {8, 2, 24})
      .add("base_model.model.model.embed_tokens.lora_embedding_A", {160, 2})
      .add("base_model.model.model.embed_tokens.lora_embedding_B", {2, 64})
      .add("base_model.model.lm_head.weight", {160, 64});
  CHECK(listed(translated(made)) ==
        "lm_head.weight [160, 64]; model.embed_tokens.lora_embedding_A [2, 160]; "
        "model.embed_tokens.lora_embedding_B [64, 2]; " +
            kUp + ".lora_A.weight [8, 2, 64]; " + kUp + ".lora_B.weight [8, 24, 2]");
}

TEST_CASE("rank_pattern is the rank of the modules that it names") {
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4, "rank_pattern": {"up_proj": 3}})");
  made.pair(kUp, {8, 64, 3}, {8, 3, 24}).pair(kQ, {64, 2}, {2, 32});
  CHECK(is_transposed(made));
}

TEST_CASE("all pairs must agree, and what tells nothing does not decide") {
  CHECK_FALSE(is_transposed(one({2, 64}, {32, 2})));
  CHECK_FALSE(is_transposed(one({2, 2}, {2, 2})));    // r == in == out
  CHECK_FALSE(is_transposed(one({2, 2}, {2, 32})));   // r == in
  CHECK_FALSE(is_transposed(one({8, 64}, {64, 8})));  // a config of another rank
  CHECK_FALSE(is_transposed(one({64, 2}, {32, 2})));  // A alone
  CHECK_FALSE(
      is_transposed(one({16, 64}, {24, 16}, "model.layers.1.mlp.experts")));  // PEFT's stack
  CHECK(is_transposed(one({64, 16}, {16, 24}, "model.layers.1.mlp.experts")));
  CHECK_FALSE(is_transposed(one({16, 16}, {16, 16}, "model.layers.1.mlp.experts")));
  MadeAdapter stack = one({64, 2}, {2, 32});
  CHECK_FALSE(is_transposed(stack.pair("model.layers.1.mlp.experts", {16, 64}, {24, 16})));
  MadeAdapter mixed = one({64, 2}, {2, 32});
  CHECK_FALSE(is_transposed(mixed.pair("model.layers.1.self_attn.v_proj", {2, 64}, {32, 2})));
  MadeAdapter square = one({2, 2}, {2, 2});
  CHECK(is_transposed(square.pair("model.layers.1.self_attn.v_proj", {64, 2}, {2, 32})));
}

TEST_CASE("the base model's widths tell where the rank does not") {
  // qwen3_moe of the catalogue: q_proj 64 -> 64, v_proj 64 -> 32
  MadeAdapter wide(R"({"r": 64, "lora_alpha": 4})");
  const std::string v = "model.layers.1.self_attn.v_proj";
  wide.pair(v, {64, 64}, {64, 32});
  CHECK_FALSE(is_transposed(wide));
  CHECK(is_transposed(wide, "qwen3_moe"));
  CHECK_FALSE(
      is_transposed(wide.pair("model.layers.1.self_attn.k_proj", {64, 64}, {32, 64}), "qwen3_moe"));
  MadeAdapter peft(R"({"r": 64, "lora_alpha": 4})");
  CHECK_FALSE(is_transposed(peft.pair(v, {64, 64}, {32, 64}), "qwen3_moe"));
  MadeAdapter square(R"({"r": 64, "lora_alpha": 4})");
  CHECK_FALSE(is_transposed(square.pair(kQ, {64, 64}, {64, 64}), "qwen3_moe"));
}

TEST_CASE("no rank, and no width that is as large, makes a sound adapter a transposed one") {
  for (const int64_t r : {1, 2, 8, 24, 32, 64, 96})
    for (const int64_t in : {1, 2, 8, 24, 32, 64, 96})
      for (const int64_t out : {1, 2, 8, 24, 32, 64, 96}) {
        CAPTURE(r);
        CAPTURE(in);
        CAPTURE(out);
        MadeAdapter made(R"({"lora_alpha": 4, "r": )" + std::to_string(r) + "}");
        made.pair(kQ, {r, in}, {out, r}).pair(kUp, {8, r, in}, {8, out, r});
        CHECK(translated(made).dialect == nullptr);
      }
}

TEST_CASE("no adapter that a real peer saved is told to be transposed, with its base or without") {
  size_t seen = 0;
  std::vector<std::string> told;
  const auto check = [&](const std::string& folder, const std::string& base) {
    CAPTURE(folder);
    AdapterFiles files = open_adapter(folder);
    CHECK(files.dialect == nullptr);
    const ModelSpec spec = open_base(base).spec;
    translate(files, &spec);
    CHECK(files.dialect == nullptr);
    ++seen;
  };
  for (const Golden& golden : goldens()) check(golden.folder(), golden.base());
  for (const Golden& golden : later_goldens()) check(golden.folder(), golden.base());
  for (const auto& entry : fs::recursive_directory_iterator(
           MOELORA_TEST_DATA, fs::directory_options::follow_directory_symlink)) {
    const std::string path = entry.path().string();
    if (entry.path().filename() != "adapter_config.json" ||
        path.find("/dialect_") != std::string::npos)
      continue;
    CAPTURE(path);
    AdapterFiles files;
    try {
      files = open_adapter(entry.path().parent_path().string());
    } catch (const Error&) {
      continue;  // broken on purpose
    }
    if (files.dialect != nullptr && files.dialect->id == "transposed")
      told.push_back(entry.path().parent_path().filename().string());
    ++seen;
  }
  MESSAGE(seen << " adapters");
  CHECK(told == std::vector<std::string>{"pe_transposed"});  // made so for vLLM's oracle
  CHECK(seen > 200);
}

TEST_CASE("--from transposed says it, and what is not is refused") {
  CHECK(listed(translated(one({2, 2}, {2, 32}), "", "transposed")) ==
        kQ + ".lora_A.weight [2, 2]; " + kQ + ".lora_B.weight [32, 2]");
  CHECK(fault(one({2, 64}, {32, 2})) ==
        a_name(kQ) +
            " [2, 64]: is not [in, r]: its rank would be 64, and adapter_config.json "
            "says 2");
  CHECK(fault(one({64, 2}, {32, 2})) ==
        b_name(kQ) +
            " [32, 2]: is not [r, out]: its rank would be 32, and adapter_config.json "
            "says 2");
  CHECK(fault(one({64}, {2, 32})) ==
        a_name(kQ) + " [64]: is not [in, r]: it has neither 2 nor 3 dims");
  CHECK(fault(one({48, 2}, {2, 64}), "qwen3_moe") ==
        a_name(kQ) + " [48, 2]: is not [in, r]: the module of this base model has 64 inputs");
  CHECK(fault(one({64, 2}, {2, 48}), "qwen3_moe") ==
        b_name(kQ) + " [2, 48]: is not [r, out]: the module of this base model has 64 outputs");
  const AdapterFiles stack =
      translated(one({64, 16}, {16, 24}, "model.layers.1.mlp.experts"), "", "transposed");
  CHECK(listed(stack) ==
        "model.layers.1.mlp.experts.lora_A.weight [16, 64]; "
        "model.layers.1.mlp.experts.lora_B.weight [24, 16]");
  CHECK(stack.config.scaling("model.layers.1.mlp.experts").rank == 2);
}

TEST_CASE("a pattern of PEFT's stacks stays, since no factor of theirs tells the rank") {
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4, "rank_pattern": {"experts.gate_up_proj": 3}})");
  made.add(a_name("model.layers.0.self_attn.q_proj"), {64, 2})
      .add(b_name("model.layers.0.self_attn.q_proj"), {2, 64});
  const AdapterFiles files = translated(made, "", "transposed");
  CHECK(files.config.scaling("model.layers.0.mlp.experts.gate_up_proj").rank == 3);
  CHECK(files.config.scaling("model.layers.0.self_attn.q_proj").rank == 2);
}
