// Which release of PEFT takes which adapter.

#include <doctest/doctest.h>

#include "lib/check/specimen.h"
#include "tests/check/goldens.h"

using namespace moelora;
using namespace moelora::test;

TEST_CASE("each release of PEFT puts lora_A on the side it does") {
  const auto count = [](const char* specimen, std::string_view engine) {
    return found_by(
               check_specimen(
                   specimen, [](Specimen& s) { s.options.values["transformers"] = "5.5"; }, engine),
               "PFT001")
        .size();
  };
  // [E, out, in] experts, natural.
  CHECK(count("qwen3_moe_stacked_params", "peft@0.17") == 1);
  CHECK(count("qwen3_moe_stacked_params", "peft@0.18") == 1);
  CHECK(count("qwen3_moe_stacked_params", "peft@0.19.0") == 1);
  CHECK(count("qwen3_moe_stacked_params", "peft@0.19.1") == 0);
  CHECK(count("qwen3_moe_stacked_params", "peft@0.20") == 0);
  // gpt-oss, [E, in, out] and marked so: wrong in 0.19.0 alone.
  CHECK(count("gpt_oss_stacked_params", "peft@0.18") == 0);
  CHECK(count("gpt_oss_stacked_params", "peft@0.19.0") == 1);
  CHECK(count("gpt_oss_stacked_params", "peft@0.21") == 0);
}

TEST_CASE("PEFT before 0.19 does not touch per-expert adapters") {
  const auto rules = [](const char* specimen, std::string_view engine) {
    std::vector<std::string_view> out;
    for (const Finding& f : check_specimen(
                                specimen, [](Specimen&) {}, engine)
                                .findings)
      if (f.severity == Severity::error) out.push_back(f.rule->id);
    return out;
  };
  using Ids = std::vector<std::string_view>;
  CHECK(rules("deepseek_v3_per_expert", "peft@0.18") == Ids{});
  CHECK(rules("deepseek_v3_per_expert", "peft@0.21") == Ids{"PFT004"});
  CHECK(rules("qwen3_moe_per_expert", "peft@0.21") == Ids{});
  CHECK(rules("nemotron_h_per_expert", "peft@0.18") == Ids{});
  CHECK(rules("nemotron_h_per_expert", "peft@0.21") == Ids{"PFT005"});
  CHECK(rules("gpt_oss_stacked", "peft") == Ids{"PFT002"});
}

TEST_CASE("adapters of one deployment that adapt the same are not a finding") {
  Specimen s = make_specimen("qwen3_moe_per_expert");
  s.adapters.push_back(s.adapter());
  s.adapters.back().given = "other";
  CHECK(found_by(run_rules(deployment_of(std::move(s), "")), "SET002").empty());
}
