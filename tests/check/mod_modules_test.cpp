// Borders of the rules that hold modules and shapes against the base model.

#include <doctest/doctest.h>
#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/specimen.h"
#include "lib/check/subject/base_headers.h"
#include "lib/model/base_model.h"
#include "tests/check/goldens.h"

using namespace moelora;
using namespace moelora::test;

namespace {

RuleResults rename(std::string_view specimen, const char* from, const char* to,
                   std::string_view engine = "") {
  Specimen s = make_specimen(specimen);
  REQUIRE(rename_tensors(s, from, to) > 0);
  return run_rules(deployment_of(std::move(s), engine));
}

}  // namespace

TEST_CASE("a wrong path is one finding that says where such modules are") {
  CHECK(
      only(rename("qwen3_moe_per_expert", ".self_attn.", ".attention."), "MOD001").message ==
      "is not a module of this base model; modules of this name are in model.layers.{n}.self_attn");
  CHECK(only(rename("qwen3_moe_per_expert", "model.model.layers.", "model.text.layers."), "MOD001")
            .message == "is not a module of this base model, whose layers are model.layers.{n}");
  CHECK(only(rename("qwen3_moe_per_expert", "q_proj", "query_proj"), "MOD001").message ==
        "is not a module of this base model; the nearest is model.layers.{n}.self_attn.q_proj");
}

TEST_CASE("spellings that the hub, transformers 5 or a trainer uses are the base model's") {
  CHECK(
      found_by(rename("mixtral_per_expert", "block_sparse_moe.experts.", "mlp.experts."), "MOD001")
          .empty());
  CHECK(found_by(rename("nemotron_h_per_expert", "backbone.layers.", "model.layers."), "MOD001")
            .empty());
  CHECK(found_by(rename("gpt_oss_attention", ".self_attn.", ".attn."), "MOD001").empty());
}

TEST_CASE("a path that the chosen server finds all the same is a warning") {
  const char* const from = "base_model.model.model.layers.";
  const char* const to = "base_model.model.model.language_model.layers.";
  CHECK(worst(found_by(rename("qwen3_moe_per_expert", from, to), "MOD001")) == Severity::error);
  CHECK(worst(found_by(rename("qwen3_moe_per_expert", from, to, "sglang"), "MOD001")) ==
        Severity::warning);
  CHECK(worst(found_by(rename("qwen3_moe_per_expert", from, to, "vllm"), "MOD001")) ==
        Severity::error);
}

TEST_CASE("many different unknown names are checked without asking for each") {
  Specimen s = make_specimen("qwen3_moe_per_expert");
  for (int i = 0; i < 3000; ++i)
    s.set(fmt::format("base_model.model.model.layers.0.x{}y.proj_{}.lora_A.weight", i, i),
          s.zeros({4, 64}));
  const RuleResults results = run_rules(deployment_of(std::move(s), ""));
  const auto found = found_by(results, "MOD001");
  CHECK(found.size() <= 22);
  size_t names = 0;
  for (const Finding& finding : found) names += finding.names.size();
  CHECK(names == 3000);
}

TEST_CASE("modules of vision towers are not checked where the base model has one") {
  const auto tower = [](Specimen& s) {
    s.set("base_model.model.visual.blocks.0.attn.proj.lora_A.weight", s.random({4, 64}));
    s.set("base_model.model.visual.blocks.0.attn.proj.lora_B.weight", s.random({64, 4}));
  };
  CHECK(worst(found_by(check_specimen("qwen3_moe_per_expert", tower), "MOD001")) ==
        Severity::error);
  Specimen s = make_specimen("qwen3_moe_per_expert");
  tower(s);
  s.base_config.set("vision_config", Json::object());
  CHECK(worst(found_by(run_rules(deployment_of(std::move(s), "")), "MOD001")) ==
        Severity::information);
}

TEST_CASE("shapes are exact in both directions, for every kind of module") {
  const auto severity = [](const std::string& name, const Shape& shape) {
    Specimen s = make_specimen("deepseek_v3_per_expert");
    s.set("base_model.model." + name, s.random(shape));
    return worst(found_by(run_rules(deployment_of(std::move(s), "")), "MOD002"));
  };
  const std::string attention = "model.layers.0.self_attn.", mlp = "model.layers.1.mlp.";
  CHECK(severity(attention + "q_b_proj.lora_B.weight", {96, 4}) == Severity::information);
  CHECK(severity(attention + "q_b_proj.lora_B.weight", {95, 4}) == Severity::error);
  CHECK(severity(attention + "q_b_proj.lora_B.weight", {97, 4}) == Severity::error);
  CHECK(severity(mlp + "experts.3.down_proj.lora_A.weight", {4, 24}) == Severity::information);
  CHECK(severity(mlp + "experts.3.down_proj.lora_A.weight", {4, 48}) == Severity::error);
  CHECK(severity(mlp + "experts.3.down_proj.lora_B.weight", {24, 4}) == Severity::error);
  CHECK(severity(mlp + "shared_experts.gate_proj.lora_B.weight", {48, 4}) == Severity::information);
  CHECK(severity(mlp + "shared_experts.gate_proj.lora_B.weight", {24, 4}) == Severity::error);
  CHECK(severity(attention + "q_b_proj.lora_A.weight", {1, 4, 24}) == Severity::error);
}

TEST_CASE("stacked pairs that fit no parameter from any side are named") {
  Specimen s = make_specimen("qwen3_moe_stacked_params");
  const std::string stem = "base_model.model.model.layers.1.mlp.experts.lora_";
  s.set(stem + "A.weight", s.random({32, 40}));
  const Finding finding = only(run_rules(deployment_of(std::move(s), "")), "MOD002");
  CHECK(finding.names == std::vector<std::string>{stem + "A.weight", stem + "B.weight"});
  CHECK(finding.message ==
        "has shape [32, 40], and the pair fits neither 64 -> 48 (gate and up) nor 24 -> 64 (down) "
        "of this base model's experts, from either side");
}

TEST_CASE("the weights of a base model, where they are at hand, have the last word") {
  Specimen s = make_specimen("qwen3_moe_per_expert");
  const std::string extra = "base_model.model.model.layers.0.self_attn.extra_proj.lora_";
  s.set(extra + "A.weight", s.random({4, 64}));
  s.set(extra + "B.weight", s.random({32, 4}));
  Deployment deployment = deployment_of(std::move(s), "");
  CHECK(worst(found_by(run_rules(deployment), "MOD001")) == Severity::error);
  auto headers = std::make_shared<BaseHeaders>();
  headers->weights["model.layers.0.self_attn.extra_proj.weight"] = {DType::BF16, {32, 64}};
  deployment.base_headers = headers;
  CHECK(found_by(run_rules(deployment), "MOD001").empty());
  CHECK(found_by(run_rules(deployment), "MOD002").empty());
  headers->weights["model.layers.0.self_attn.extra_proj.weight"] = {DType::BF16, {48, 64}};
  CHECK(only(run_rules(deployment), "MOD002").message ==
        "has shape [32, 4], expected 48 rows: the module of this base model is 64 -> 48");
}

TEST_CASE("the headers of a golden base model fit its adapters") {
  const std::string folder = std::string(MOELORA_TEST_DATA) + "/gpt_oss/";
  const BaseModel base = open_base(folder + "base");
  std::string note;
  const auto headers = read_base_headers(base, note);
  REQUIRE(headers != nullptr);
  CHECK(note.empty());
  CHECK(headers->find_linear("model.layers.0.self_attn.q_proj")->shape == Shape{64, 64});
  CHECK(headers->find_linear("model.layers.0.mlp.experts") == nullptr);
  for (const char* name : {"attention_only", "per_expert", "embed_lm_head", "router"}) {
    CAPTURE(name);
    GoldenResults golden = check_golden("gpt_oss", name, true);
    golden.deployment.base_headers = headers;
    const RuleResults results = run_rules(golden.deployment);
    CHECK(found_by(results, "MOD001").empty());
    CHECK(found_by(results, "MOD002").empty());
  }
  CHECK(read_base_headers({base.spec, base.config, "a built-in config", ""}, note) == nullptr);
  CHECK(!note.empty());
}

TEST_CASE("layers end where the base model does") {
  CHECK(
      found_by(rename("qwen3_moe_per_expert", "layers.0.self_attn", "layers.1.self_attn"), "MOD003")
          .empty());
  CHECK(only(rename("qwen3_moe_per_expert", "layers.1.", "layers.2."), "MOD003").message ==
        "names a layer beyond the last; this base model has layers 0 to 1");
  const Finding mtp = only(rename("deepseek_v3_per_expert", "layers.1.", "layers.2."), "MOD003");
  CHECK(mtp.message.find("prediction layers") != std::string::npos);
  const RuleResults tower = rename("qwen3_moe_per_expert", "model.model.layers.1.self_attn",
                                   "model.visual.layers.1.self_attn");
  CHECK(only(tower, "MOD003").message.find("another tower") != std::string::npos);
  CHECK(found_by(tower, "MOD001").empty());
}
