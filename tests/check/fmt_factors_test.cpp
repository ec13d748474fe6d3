// Borders of the rules of factors: pairs, layouts, order and roles, dtypes.

#include <doctest/doctest.h>
#include <fmt/core.h>

#include "lib/base/cast.h"
#include "lib/check/define_rule.h"
#include "lib/check/specimen.h"
#include "tests/check/goldens.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kQ = "base_model.model.model.layers.0.self_attn.q_proj.lora_";

}  // namespace

TEST_CASE("orphans are gathered by what is missing") {
  const RuleResults results = check_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    remove_tensors(s, "o_proj.lora_B");
    remove_tensors(s, "layers.0.self_attn.k_proj.lora_A");
  });
  const auto found = found_by(results, "FMT006");
  REQUIRE(found.size() == 2);
  CHECK(found[0].names.size() == 1);
  CHECK(found[0].message == "has no lora_A beside it");
  CHECK(found[1].names.size() == 2);
  CHECK(found[1].message == "has no lora_B beside it");
}

TEST_CASE("an empty factor is an error, an up without elements on both sides is none") {
  const auto empty_up = [](Specimen& s) {
    for (int layer : {0, 1})
      for (int e = 0; e < 8; ++e)
        for (const char side : {'A', 'B'})
          s.set(
              fmt::format("base_model.model.model.layers.{}.mlp.experts.{}.up_proj.lora_{}.weight",
                          layer, e, side),
              s.zeros({0}));
  };
  const RuleResults results = check_specimen("qwen3_moe_per_expert", empty_up);
  INFO(findings_text(results));
  CHECK(worst(found_by(results, "FMT007")) == Severity::warning);  // this base has a gate
  for (const Shape& shape : {Shape{0}, Shape{256}, Shape{0, 64}, Shape{}}) {
    CAPTURE(to_string(shape));
    Specimen specimen = make_specimen("qwen3_moe_per_expert");
    specimen.set(kQ + "A.weight", specimen.zeros(shape));
    CHECK(worst(found_by(run_rules(deployment_of(std::move(specimen), "")), "FMT007")) ==
          Severity::error);
  }
}

TEST_CASE("the token shared, where a number is expected, is named") {
  const RuleResults results = check_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    rename_tensors(s, ".experts.0.gate_proj", ".experts.shared.gate_proj");
  });
  const auto found = found_by(results, "FMT010");
  REQUIRE(found.size() == 1);
  CHECK(found[0].message.find("\"shared\" stands where") != std::string::npos);
}

TEST_CASE("an order of lora_B that cannot matter, or is marked, is not asked for") {
  CHECK(found_by(check_golden("qwen3_moe", "peft_params", true).results, "FMT011").size() == 1);
  CHECK(
      found_by(check_golden("qwen3_moe", "peft_params_grouped_b", true).results, "FMT011").empty());
  CHECK(found_by(check_specimen("qwen3_moe_stacked_params", [](Specimen&) {}), "FMT011").empty());
  const auto unsloth_rank_1 = [](Specimen& s) {
    s.config().erase("auto_mapping");
    s.config().set("base_model_name_or_path", "unsloth/Qwen3-30B-A3B");
    s.config().set("r", 1);
    for (auto& [name, tensor] : s.tensors())
      tensor = name.find("lora_A") != std::string::npos ? tensor.slice(0, 0, tensor.dim(0) / 4)
                                                        : tensor.slice(1, 0, tensor.dim(1) / 4);
  };
  const RuleResults results = check_specimen("qwen3_moe_stacked_params", unsloth_rank_1);
  INFO(findings_text(results));
  CHECK(found_by(results, "FMT011").empty());
}

TEST_CASE("reversed roles matter to the servers that read stacked pairs") {
  const auto severity = [](const std::vector<std::string>& engines) {
    return worst(found_by(
        check_golden("qwen3_moe", "peft_params_swapped_roles", true, engines).results, "FMT013"));
  };
  CHECK(severity({}) == Severity::warning);
  CHECK(severity({"vllm"}) == Severity::error);
  CHECK(severity({"peft@0.18"}) == Severity::information);
}

TEST_CASE("dtypes that are not floats are errors, F64 is a warning, the float types are sound") {
  const auto severity = [](DType dtype) {
    Specimen specimen = make_specimen("qwen3_moe_per_expert");
    specimen.set(kQ + "A.weight",
                 is_float(dtype) ? filled({4, 64}, 0.5F, dtype) : specimen.zeros({4, 64}, dtype));
    const auto found = found_by(run_rules(deployment_of(std::move(specimen), "")), "FMT016");
    return found.empty() ? Severity::information : worst(found);
  };
  for (DType dtype : {DType::F32, DType::F16, DType::BF16})
    CHECK(severity(dtype) == Severity::information);
  CHECK(severity(DType::F64) == Severity::warning);
  for (DType dtype : {DType::I8, DType::U8, DType::I32, DType::F8_E4M3, DType::BOOL})
    CHECK(severity(dtype) == Severity::error);
}

TEST_CASE(
    "an even share of the experts is distinguished from a smaller rank by the rank of the config") {
  const auto with_rows = [](int64_t per_expert_rows) {
    Specimen s = make_specimen("qwen3_moe_stacked_params");
    for (auto& [name, tensor] : s.tensors()) {
      if (name.find(".experts.") == std::string::npos) continue;
      const bool a = name.find("lora_A") != std::string::npos;
      tensor = tensor.slice(a ? 0 : 1, 0, per_expert_rows);
    }
    return run_rules(deployment_of(std::move(s), ""));
  };
  for (const int64_t local : {1, 2, 4}) {
    const RuleResults results = with_rows(local * 4);
    INFO(findings_text(results));
    CHECK(found_by(results, "FMT017").size() == 1);
    CHECK(found_by(results, "CFG002").empty());
  }
  const RuleResults smaller =
      with_rows(24);  // rank 3 of 8 experts; 6 experts are not an even share
  CHECK(found_by(smaller, "FMT017").empty());
  CHECK(worst(found_by(smaller, "CFG002")) == Severity::error);
}

TEST_CASE("the same factor under two names, with other values, is an error for PEFT too") {
  const auto twice = [](Specimen& s) {
    s.set(kQ.substr(std::string("base_model.model.").size()) + "A.weight", s.zeros({4, 64}));
  };
  for (const char* engine : {"", "peft", "peft@0.19"}) {
    CAPTURE(engine);
    const RuleResults results = check_specimen("qwen3_moe_per_expert", twice, engine);
    INFO(findings_text(results));
    CHECK(worst(found_by(results, "FMT021")) == Severity::error);
  }
}

TEST_CASE("an empty factor of an expert is an error whatever a server makes of it") {
  const auto empty = [](Specimen& s) {
    s.set("base_model.model.model.layers.0.mlp.experts.3.down_proj.lora_A.weight",
          s.zeros({0, 24}));
  };
  for (const char* engine : {"", "sglang", "vllm", "peft"})
    CHECK(worst(found_by(check_specimen("qwen3_moe_per_expert", empty, engine), "FMT007")) ==
          Severity::error);
}

TEST_CASE("a module to be saved whole without a tensor is said") {
  const RuleResults results = check_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    s.adapter().config.set("modules_to_save", Json::strings({"lm_head"}));
  });
  const auto found = found_by(results, "CFG005");
  REQUIRE(found.size() == 1);
  CHECK(found[0].message.find("names \"lm_head\", for which there is no tensor") !=
        std::string::npos);
}
