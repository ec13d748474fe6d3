// Adapters that real trainers saved: what is sound is clean, adapter by adapter, and what is not is
// said by the rule that knows it.

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <map>

#include "tests/check/goldens.h"

using namespace moelora;
using namespace moelora::test;

namespace {

constexpr std::array<const char*, 7> kFamilies = {
    "gpt_oss", "gpt_oss_square", "qwen3_moe", "mixtral", "deepseek_v3", "glm4_moe", "qwen2_moe"};

// What is wrong with a golden whatever serves it: the rules that say so above information, with the
// base model and without. Every other golden is sound.
using Rules = std::vector<std::string_view>;
struct Unsound {
  Rules with_base, without_base;
};

const std::map<std::string, Unsound>& unsound() {
  static const std::map<std::string, Unsound> kUnsound = {
      {"peft_params_swapped_roles", {{"FMT013"}, {"FMT013"}}},
      {"peft_params_alphabetical", {{"FMT014"}, {"FMT014"}}},
      {"tinker", {{"CFG001"}, {"CFG001"}}},  // r and lora_alpha alone
      {"attention_only_sharded", {{"FMT004"}, {"FMT004"}}},
      // Nothing says which parameter or which side a lone pair of square experts is.
      {"gpt_oss_square/peft_params_down_only", {{"FMT012"}, {"FMT012"}}},
      {"gpt_oss_square/peft_params_gate_up_only", {{}, {"FMT012"}}},
      {"peft_params_down_only", {{}, {"FMT012"}}},
      {"peft_params_gate_up_only", {{}, {"FMT012"}}},
  };
  return kUnsound;
}

Rules expected(const std::string& family, const std::string& name, bool with_base) {
  for (const std::string& key : {family + "/" + name, name})
    if (const auto at = unsound().find(key); at != unsound().end())
      return with_base ? at->second.with_base : at->second.without_base;
  return {};
}

Rules above_information(const RuleResults& results) {
  Rules out;
  for (const Finding& finding : results.findings)
    if (finding.severity != Severity::information &&
        std::find(out.begin(), out.end(), finding.rule->id) == out.end())
      out.push_back(finding.rule->id);
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace

TEST_CASE("no golden adapter has a finding that is not its own, with the base model and without") {
  int checked = 0;
  for (const std::string family : kFamilies)
    for (const std::string& name : golden_adapters(family))
      for (const bool with_base : {true, false}) {
        const RuleResults results = check_golden(family, name, with_base).results;
        INFO(family << "/" << name << (with_base ? "" : " without base") << "\n"
                    << findings_text(results));
        CHECK(above_information(results) == expected(family, name, with_base));
        ++checked;
      }
  CHECK(checked > 100);
}

TEST_CASE("what PEFT 0.21 saved, PEFT 0.21 loads") {
  for (const std::string family : kFamilies)
    for (const std::string& name : golden_adapters(family)) {
      const GoldenResults golden = check_golden(family, name, true, {"peft"});
      if (golden.deployment.adapters[0].parsed_config->peft_version != "0.21.0") continue;
      if (!expected(family, name, true).empty()) continue;
      if (name.find("grouped_b") != std::string::npos) continue;  // made from a PEFT file by hand
      INFO(family << "/" << name << "\n" << findings_text(golden.results));
      CHECK(above_information(golden.results).empty());
    }
}
