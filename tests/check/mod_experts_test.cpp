// Borders of the rules that hold experts against the base model, and what an adapter covers.

#include <doctest/doctest.h>
#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/specimen.h"
#include "lib/model/base_model.h"
#include "tests/check/goldens.h"

using namespace moelora;
using namespace moelora::test;

TEST_CASE("the last expert is in range, the next is not") {
  const auto count = [](int expert) {
    Specimen s = make_specimen("qwen3_moe_per_expert");
    s.set(
        fmt::format("base_model.model.model.layers.0.mlp.experts.{}.up_proj.lora_A.weight", expert),
        s.random({4, 64}));
    return found_by(run_rules(deployment_of(std::move(s), "")), "MOD004").size();
  };
  CHECK(count(7) == 0);
  CHECK(count(8) == 1);
  const auto leading = [](int64_t experts) {
    Specimen s = make_specimen("gpt_oss_stacked");  // 4 experts
    s.set("base_model.model.model.layers.0.mlp.experts.down_proj.lora_A.weight",
          s.random({experts, 4, 48}));
    return found_by(run_rules(deployment_of(std::move(s), "")), "MOD004").size();
  };
  CHECK(leading(1) == 0);
  CHECK(leading(4) == 0);
  CHECK(leading(2) == 1);
  CHECK(leading(8) == 1);
}

TEST_CASE("missing experts and layers are counted, and chosen layers are not a fault") {
  const RuleResults some = check_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    remove_tensors(s, "layers.0.mlp.experts.3.");
    remove_tensors(s, "layers.0.mlp.experts.5.up_proj");
  });
  const auto found = found_by(some, "MOD005");
  REQUIRE(found.size() == 2);
  CHECK(found[0].message == "has down_proj, gate_proj of 7 of 8 experts, and none of 3");
  CHECK(found[1].message == "has up_proj of 6 of 8 experts, and none of 3,5");
  const auto one_layer = [](Specimen& s) { remove_tensors(s, "layers.1.mlp.experts."); };
  const Finding layers = only(check_specimen("qwen3_moe_per_expert", one_layer), "MOD005");
  CHECK(layers.severity == Severity::warning);
  CHECK(layers.message == "has routed-expert factors, and layers 1 of the 2 MoE layers have none");
  Specimen chosen = make_specimen("qwen3_moe_per_expert");
  one_layer(chosen);
  chosen.config().set("layers_to_transform", Json::array({Json(0)}));
  chosen.config().set("peft_version", "0.21.0");
  CHECK(only(run_rules(deployment_of(std::move(chosen), "")), "MOD005").severity ==
        Severity::information);
}

TEST_CASE("coverage says what is adapted, and when only shared experts are") {
  CHECK(only(check_golden("qwen3_moe", "per_expert", true).results, "MOD007").message ==
        "adapts routed experts (down_proj, gate_proj, up_proj) in layers 1-2");
  CHECK(only(check_golden("gpt_oss", "peft_params", true).results, "MOD007").message ==
        "adapts attention (k_proj, o_proj, q_proj, v_proj) in layers 0-1; routed experts "
        "(down_proj, gate_up_proj) in layers 0-1");
  const RuleResults shared = check_specimen(
      "deepseek_v3_per_expert", [](Specimen& s) { remove_tensors(s, ".mlp.experts."); });
  CHECK(only(shared, "MOD007").message.find("reach the shared experts only") != std::string::npos);
}

TEST_CASE("MXFP4 experts are SGLang's error") {
  const auto severity = [](std::string_view engine) {
    Specimen s = make_specimen("gpt_oss_stacked_params");
    s.base_config.set("quantization_config", Json::object({{"quant_method", "mxfp4"}}));
    return worst(found_by(run_rules(deployment_of(std::move(s), engine)), "MOD008"));
  };
  CHECK(severity("") == Severity::warning);
  CHECK(severity("sglang") == Severity::error);
  CHECK(severity("vllm") == Severity::information);
}

TEST_CASE("another base model is recognized by its sizes, a copy of the same is not one") {
  const auto check_base = [](const char* named, const char* given) {
    Specimen s = make_specimen("gpt_oss_attention");
    s.config().set("base_model_name_or_path", named);
    Deployment deployment = deployment_of(std::move(s), "");
    deployment.base = open_base(given);
    return found_by(run_rules(deployment), "MOD009").size();
  };
  CHECK(check_base("openai/gpt-oss-20b", "openai/gpt-oss-20b") == 0);
  CHECK(check_base("openai/gpt-oss-120b", "openai/gpt-oss-20b") == 1);
  CHECK(check_base("someone/unknown", "openai/gpt-oss-20b") == 0);
  CHECK(check_base("unsloth/gpt-oss-20b-unsloth-bnb-4bit", "openai/gpt-oss-20b") == 1);
}
