// NUM002 and NUM003 against vLLM's oracle: what it serves wrongly is measured, and nothing else.

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <span>
#include <string_view>

#include "tests/check/vllm_deployment.h"

using namespace moelora;
using namespace moelora::test;

namespace {

// Served, and not as meant (goldens/oracles/vllm.md, sections 4 and 6): every load of them.
constexpr std::string_view kWrong[] = {
    "gpt_oss/base_layer_anywhere",
    "gpt_oss/peft_params_grouped_b",
    "gpt_oss/peft_patterns",
    "gpt_oss/shared_outer_bf16",
    "gpt_oss/shared_outer_expanded",
    "gpt_oss/stacked_base_layer_only",
    "gpt_oss/stacked_base_layer_only_layer1",
    "gpt_oss/stacked_rank_pattern",
    "gpt_oss_square/peft_patterns",
    "mixtral/all_linear",
    "mixtral/peft_params",
    "mixtral/router_v5_path",
    "nemotron_h/pe_rslora_backbone",
    "nemotron_h/stacked_backbone",
    "qwen3_moe/attn_big_out",
    "qwen3_moe/attn_k_as_big_as_q",
    "qwen3_moe/dense_names_on_moe_layer",
    "qwen3_moe/pe_alpha_pattern",
    "qwen3_moe/pe_big_I",
    "qwen3_moe/pe_experts_on_dense_layer",
    "qwen3_moe/pe_layer_out_of_range",
    "qwen3_moe/pe_misplaced_module",
    "qwen3_moe/pe_one_model_short",
    "qwen3_moe/pe_rank_pattern_attn",
    "qwen3_moe/pe_rslora",
    "qwen3_moe/pe_wrapper_prefix",
    "qwen3_moe/peft_params_alphabetical",
    "qwen3_moe/peft_params_grouped_b",
    "qwen3_moe/peft_params_swapped_roles",
    "qwen3_moe/shared_outer_bf16",
    "qwen3_moe/shared_outer_expanded",
};

// Served, and nobody can say what they mean: ranks that are not the config's, halves of pairs, two
// layouts, factors that are not floats. A module twice with the same bytes means what it says.
constexpr std::string_view kUnknown[] = {
    "gpt_oss/stacked_8_experts",
    "gpt_oss/stacked_rank_above_buffer",
    "qwen3_moe/attn_B_without_A",
    "qwen3_moe/pe_f8_e4m3",
    "qwen3_moe/pe_i8",
    "qwen3_moe/pe_rank_above_buffer",
    "qwen3_moe/pe_rank_below_config",
    "qwen3_moe/pe_rank_negative",
    "qwen3_moe/pe_ranks_differ_between_projections",
    "qwen3_moe/stacked_and_per_expert",
};

// Of kWrong, what is served as meant by 0.33: it applies patterns, and rsLoRA to all experts.
constexpr std::string_view kRightIn033[] = {
    "gpt_oss/shared_outer_bf16",    "qwen3_moe/shared_outer_bf16",
    "gpt_oss/peft_patterns",        "gpt_oss/stacked_rank_pattern",
    "gpt_oss_square/peft_patterns", "nemotron_h/pe_rslora_backbone",
    "qwen3_moe/pe_alpha_pattern",   "qwen3_moe/pe_rank_pattern_attn",
    "qwen3_moe/pe_rslora",
};
// What 0.33 serves otherwise than meant and older ones refuse.
constexpr std::string_view kWrongIn033[] = {"mixtral/pe_v5_names"};

bool is_in(std::span<const std::string_view> list, const VllmRun& run) {
  return std::find(list.begin(), list.end(), run.family + "/" + run.adapter) != list.end();
}

bool is_wrong(const VllmRun& run) {
  if (run.version != "0.33") return is_in(kWrong, run);
  return is_in(kWrongIn033, run) || (is_in(kWrong, run) && !is_in(kRightIn033, run));
}

std::vector<Finding> numbers(const RuleResults& results) {
  std::vector<Finding> out = results.findings;
  std::erase_if(out, [](const Finding& f) { return !f.rule->id.starts_with("NUM"); });
  return out;
}

}  // namespace

TEST_CASE("NUM002 measures exactly what vLLM serves wrongly, and says which rule explains it") {
  size_t loads = 0;
  std::set<std::string> wrong, unknown;
  for (const VllmRun& run : vllm_oracle().runs) {
    if (run.rank != 0 || run.mode == "as3d" || !run.outcome->served()) continue;
    if (run.version != "0.22" && run.version != "0.27" && run.version != "0.33") continue;
    CAPTURE(run.text());
    std::set<std::string_view> rules;
    for (const Finding& finding : numbers(check_for_vllm(run))) {
      CAPTURE(finding.message);
      CHECK_FALSE(finding.unchecked);
      CHECK(finding.message.find("no rule") == std::string::npos);
      CHECK_FALSE((finding.rule->id == "NUM002" && finding.fix.empty()));
      rules.insert(finding.rule->id);
    }
    CHECK(rules.contains("NUM002") == is_wrong(run));
    CHECK(rules.contains("NUM003") == is_in(kUnknown, run));
    if (is_in(kWrong, run)) wrong.insert(run.family + "/" + run.adapter);
    if (is_in(kUnknown, run)) unknown.insert(run.family + "/" + run.adapter);
    ++loads;
  }
  CHECK(loads > 300);
  CHECK(wrong.size() == std::size(kWrong));
  CHECK(unknown.size() == std::size(kUnknown));
}

TEST_CASE(
    "a padded partition of MXFP4 experts gives the second rank other units than it computes") {
  VllmRun run;
  run.family = "gpt_oss";
  run.adapter = "peft_params";
  run.version = "0.27";
  ServerOptions options;
  options.tp = 2;
  options.values["quantization"] = "mxfp4";
  const auto found = numbers(check_for_vllm(run, options));
  REQUIRE(found.size() == 1);
  CHECK(found[0].rule->id == "NUM002");
  CHECK(found[0].severity == Severity::warning);  // as VLM021: nobody ran that server
  CHECK(found[0].message.starts_with(
      "down_proj, gate_proj and up_proj of layers 0-1, experts 0-3 (24 deltas): what is added is "
      "off by 0."));
  CHECK(found[0].message.ends_with("VLM021 padded-partition"));
  options.values["quantization"] = "none";
  CHECK(numbers(check_for_vllm(run, options)).empty());
  options.values["quantization"] = "mxfp4";
  options.tp = 1;
  CHECK(numbers(check_for_vllm(run, options)).empty());
}
