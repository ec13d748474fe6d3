// One scale and one rank for all: servers multiply every pair by lora_alpha / r of the config.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "tests/engine/fitted.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kQ = "model.layers.1.self_attn.q_proj", kV = "model.layers.1.self_attn.v_proj",
                  kO = "model.layers.1.self_attn.o_proj";

MadeAdapter attention(const std::string& config, int64_t q_rank = 2) {
  MadeAdapter made(config);
  add_attention(made, 1, "q_proj", q_rank);
  add_attention(made, 1, "v_proj");
  add_attention(made, 1, "o_proj");
  return made;
}

// Experts of layer 1 of the catalogue's qwen3_moe: 8 experts, H 64, I 24.
MadeAdapter numbered_experts(const std::string& config, int64_t rank = 2) {
  MadeAdapter made(config);
  for (int e = 0; e < 8; ++e) {
    const std::string stem = "model.layers.1.mlp.experts." + std::to_string(e) + ".";
    made.pair(stem + "gate_proj", {rank, 64}, {24, rank});
    made.pair(stem + "up_proj", {rank, 64}, {24, rank});
    made.pair(stem + "down_proj", {rank, 24}, {64, rank});
  }
  return made;
}

std::string b_change(const Tensor& b) { return b.pieces().front().source->change(); }

}  // namespace

TEST_CASE("one scale for all needs no repair") {
  for (const char* engine : {"sglang", "vllm"}) {
    CAPTURE(engine);
    const auto out =
        fitted(attention(R"({"r": 2, "lora_alpha": 4})"), "qwen3_moe", fit_for(engine));
    CHECK(out.changes.made.empty());
    CHECK(out.adapter.config.lora_alpha == 4);
  }
}

TEST_CASE("rsLoRA becomes a lora_alpha of the same scale and nothing is rounded") {
  for (const char* engine : {"sglang", "vllm"}) {
    CAPTURE(engine);
    const auto c = converted(attention(R"({"r": 2, "lora_alpha": 4, "use_rslora": true})"),
                             "qwen3_moe", fit_for(engine));
    CHECK(c.config.find("use_rslora")->as_bool() == false);
    CHECK(c.config.find("r")->as_int() == 2);
    CHECK(c.config.find("lora_alpha")->as_double() / 2 == 4 / std::sqrt(2));
    CHECK(b_change(c.adapter.dense.at(kQ).b).empty());
    CHECK(note_of(*c.changes, "one-scale").empty());
    CHECK(note_of(*c.changes, "one-rank").find("rsLoRA become r 2") != std::string::npos);
  }
}

TEST_CASE("PEFT keeps rsLoRA and patterns: it reads them") {
  const auto c = converted(
      attention(R"({"r": 2, "lora_alpha": 4, "use_rslora": true, "alpha_pattern": {"q_proj": 8}})"),
      "qwen3_moe", fit_for("peft"));
  CHECK(c.config.find("use_rslora")->as_bool());
  CHECK(c.config.find("alpha_pattern")->find("q_proj")->as_int() == 8);
  CHECK(c.changes->made.empty());
}

TEST_CASE("a scale that differs goes into lora_B, exactly where the ratio is a power of two") {
  for (const char* engine : {"sglang", "vllm"}) {
    CAPTURE(engine);
    const MadeAdapter made =
        attention(R"({"r": 2, "lora_alpha": 4, "alpha_pattern": {"q_proj": 1}})");
    const auto before = made.read("qwen3_moe").adapter;
    const auto c = converted(made, "qwen3_moe", fit_for(engine));
    const DensePair &was = before.dense.at(kQ), &is = c.adapter.dense.at(kQ);
    CHECK(b_change(is.b) == "scaled by 0.25 (exact)");
    CHECK(delta_of(is.a, is.b, is.scaling) == delta_of(was.a, was.b, was.scaling));
    CHECK(b_change(c.adapter.dense.at(kV).b).empty());
    CHECK(c.config.find("alpha_pattern")->members().empty());
    CHECK(c.config.find("lora_alpha")->as_int() == 4);
    CHECK(note_of(*c.changes, "one-scale")
              .find("which is 2 for most: lora_B scaled by 0.25 (exact) "
                    "in " +
                    kQ) != std::string::npos);
  }
}

TEST_CASE("any other ratio is rounded once, and the note says so") {
  const auto c =
      converted(attention(R"({"r": 2, "lora_alpha": 4, "alpha_pattern": {"q_proj": 5}})"),
                "qwen3_moe", fit_for("vllm"));
  CHECK(b_change(c.adapter.dense.at(kQ).b) == "scaled by 1.25");
  CHECK(note_of(*c.changes, "one-scale").find("1.25 (rounded once)") != std::string::npos);
}

TEST_CASE("the scale of most pairs is kept, counting every expert") {
  MadeAdapter made = numbered_experts(R"({"r": 2, "lora_alpha": 4,
                                          "alpha_pattern": {"self_attn.*": 16}})");
  for (const char* name : {"q_proj", "k_proj", "v_proj", "o_proj"}) add_attention(made, 1, name);
  const auto out = fitted(made, "qwen3_moe", fit_for("vllm"));
  CHECK(out.adapter.config.lora_alpha == 4);
  CHECK(b_change(out.adapter.dense.at(kQ).b) == "scaled by 4 (exact)");
}

TEST_CASE("experts with scales of their own get factors of their own") {
  const auto out = fitted(numbered_experts(R"({"r": 2, "lora_alpha": 4, "alpha_pattern":
                              {"experts.3.down_proj": 8, "experts.5.down_proj": 2}})"),
                          "qwen3_moe", fit_for("sglang"));
  const ExpertPair& down = out.adapter.experts.at({1, Projection::down});
  CHECK(b_change(down.b.at(2)).empty());
  CHECK(b_change(down.b.at(3)) == "scaled by 2 (exact)");
  CHECK(b_change(down.b.at(5)) == "scaled by 0.5 (exact)");
  CHECK(down.scaling.size() == 1);
}

TEST_CASE("ranks that differ are filled up with zeros, and the scale stays") {
  for (const char* engine : {"sglang", "vllm"}) {
    CAPTURE(engine);
    const MadeAdapter made = attention(
        R"({"r": 2, "lora_alpha": 4, "rank_pattern": {"q_proj": 3}, "alpha_pattern": {"q_proj": 6}})",
        3);
    const auto before = made.read("qwen3_moe").adapter;
    const auto c = converted(made, "qwen3_moe", fit_for(engine));
    CHECK(c.config.find("r")->as_int() == 3);
    CHECK(c.config.find("lora_alpha")->as_int() == 6);
    CHECK(c.config.find("rank_pattern")->members().empty());
    const DensePair &was = before.dense.at(kO), &is = c.adapter.dense.at(kO);
    CHECK(is.a.shape() == Shape{3, 64});
    CHECK(is.b.shape() == Shape{64, 3});
    CHECK(all_zero(is.a.slice(0, 2, 1)));
    CHECK(all_zero(is.b.slice(1, 2, 1)));
    CHECK(is.a.slice(0, 0, 2).read() == was.a.read());
    CHECK(is.b.slice(1, 0, 2).read() == was.b.read());
    CHECK(note_of(*c.changes, "one-rank").find("ranks 2, 3 become 3 by zero rows") !=
          std::string::npos);
  }
}

TEST_CASE("vLLM with fully sharded adapters gets a rank that tp divides") {
  const auto c = converted(attention(R"({"r": 2, "lora_alpha": 4})"), "qwen3_moe",
                           fit_for("vllm", {"fully-sharded=on", "tp-size=4"}));
  CHECK(c.config.find("r")->as_int() == 4);
  CHECK(c.config.find("lora_alpha")->as_int() == 8);
  CHECK(c.adapter.dense.at(kQ).a.shape() == Shape{4, 64});
}

TEST_CASE(
    "vLLM's plan is for a server started for a rank above its default, which is noted; or as "
    "asked") {
  const MadeAdapter made = numbered_experts(R"({"r": 24, "lora_alpha": 48})", 24);
  const auto c = converted(made, "qwen3_moe", fit_for("vllm"));
  REQUIRE(c.changes->notes.size() == 1);
  CHECK(c.changes->notes.front() ==
        "start vLLM with --max-lora-rank 32 or more: rank 24 is above its default 16");
  CHECK_THROWS_WITH_AS(converted(made, "qwen3_moe", fit_for("vllm", {"max-lora-rank=16"})),
                       doctest::Contains("LoRA rank 24 is greater than max_lora_rank 16."), Error);
  CHECK(converted(made, "qwen3_moe", fit_for("vllm", {"max-lora-rank=64"})).changes->notes.empty());
}

TEST_CASE("SGLang before 0.5.11 gets the rank its pool has") {
  const std::vector<std::string> pool{"max-lora-rank=8"};
  const MadeAdapter made = numbered_experts(R"({"r": 2, "lora_alpha": 4})");
  CHECK(fitted(made, "qwen3_moe", fit_for("sglang@0.5.10", pool)).adapter.config.r == 8);
  CHECK(fitted(made, "qwen3_moe", fit_for("sglang@0.5.11", pool)).adapter.config.r == 2);
}

TEST_CASE("embedding factors are scaled and filled up like any pair") {
  MadeAdapter made = attention(
      R"({"r": 2, "lora_alpha": 4, "alpha_pattern": {"embed_tokens": 8}, "rank_pattern": {"o_proj": 2, "q_proj": 4}})",
      4);
  made.add("base_model.model.model.embed_tokens.lora_embedding_A", {2, 160});
  made.add("base_model.model.model.embed_tokens.lora_embedding_B", {64, 2});
  const auto c = converted(made, "qwen3_moe", fit_for("vllm"));
  const Tensor& b = c.adapter.extras.at("model.embed_tokens.lora_embedding_B").tensor;
  CHECK(c.adapter.extras.at("model.embed_tokens.lora_embedding_A").tensor.dim(0) == 4);
  CHECK(b.dim(1) == 4);
  CHECK(b_change(b) == "scaled by 2 (exact)");
  std::vector<std::string> targets;
  for (const Json& entry : c.config.find("target_modules")->items())
    targets.push_back(entry.as_string());
  CHECK(std::count(targets.begin(), targets.end(), "embed_tokens") == 1);
}

TEST_CASE("a product beyond F16 is refused when it is written, with the tensor's name") {
  MadeAdapter made = attention(R"({"r": 2, "lora_alpha": 4, "alpha_pattern": {"q_proj": 4000}})");
  LoadedAdapter read = made.read("qwen3_moe");
  for (auto& entry : read.adapter.dense)
    entry.second.b = cast_tensors({{"b", entry.second.b}}, DType::F16).at("b");
  const FittedAdapter out = fit_adapter(read, fit_for("vllm"));
  CHECK_THROWS_WITH_AS(out.adapter.dense.at(kQ).b.read(), doctest::Contains("more than F16"),
                       Error);
}
