#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "lib/adapter/names/config_kinds.h"
#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/json_schema_subset.h"
#include "lib/check/rule_context.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

// Keys that decide what the tensors mean; of others servers take no notice.
constexpr std::array<std::string_view, 16> kMeaning = {"",
                                                       "r",
                                                       "lora_alpha",
                                                       "target_modules",
                                                       "peft_type",
                                                       "bias",
                                                       "use_rslora",
                                                       "use_dora",
                                                       "lora_bias",
                                                       "fan_in_fan_out",
                                                       "moelora",
                                                       "rank_pattern",
                                                       "alpha_pattern",
                                                       "target_parameters",
                                                       "modules_to_save",
                                                       "lora_B_layout"};

bool has_meaning(const SchemaFault& fault) {
  return std::find(kMeaning.begin(), kMeaning.end(), fault.key) != kMeaning.end();
}

bool none_but(const RuleContext& context, const Engine& engine) {
  return all_chosen(context, [&](const EngineRun& run) { return run.choice.engine == &engine; });
}

void report_fault(RuleContext& context, const SchemaFault& fault) {
  const bool nested = fault.path != fault.key;
  Finding& finding = context.report_config(
      fault.key, nested ? fmt::format("{} {}", fault.path, fault.message) : fault.message);
  finding.line = fault.at->line();
  finding.column = fault.at->column();
  // vLLM does not look at peft_type, PEFT has a default for target_modules.
  const bool missing = context.subject().config.find(fault.key) == nullptr;
  const bool unread = (fault.key == "peft_type" && missing && none_but(context, engines::vllm)) ||
                      (fault.key == "target_modules" && none_but(context, engines::peft));
  if (!has_meaning(fault) || unread) finding.severity = Severity::warning;
  const bool other_method =
      fault.key == "peft_type" && !missing && context.subject().config_error.has_value();
  if (other_method)
    finding.fix = context.subject().config_error->hint();
  else
    downgrade_if_served(finding, context);
}

// null is what PEFT writes for an adapter of target_parameters alone.
void check_null_targets(RuleContext& context) {
  const Json* targets = context.subject().config.find("target_modules");
  if (targets == nullptr || !targets->is(Json::Kind::null) ||
      chosen(context, engines::sglang).empty())
    return;
  Finding& finding = context.report_config("target_modules", "is null, and SGLang wants a list");
  set_severity_by_engine(finding, context, {&engines::sglang});
  finding.remedy = Remedy::for_engine;
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.has_config) return;
  if (is_mlx_config(subject.config)) {
    Finding& finding = context.report(*subject.config_error);
    finding.file = kConfigName;
    finding.remedy = Remedy::rewrite;
    return;
  }
  const std::vector<SchemaFault> faults = check_schema(subject.config, adapter_config_schema());
  for (const SchemaFault& fault : faults) report_fault(context, fault);
  check_null_targets(context);
  if (subject.config_error && std::none_of(faults.begin(), faults.end(), has_meaning))
    context.report(*subject.config_error).file = "adapter_config.json";
}

}  // namespace

const Rule cfg001_missing_field = {
    .id = "CFG001",
    .name = "missing-field",
    .cause = &cause::missing_field,
    .what =
        "r, lora_alpha, target_modules or peft_type is missing from adapter_config.json, a key is "
        "of another type than PEFT writes, or the adapter is of another method than LoRA.",
    .why =
        "SGLang stops with KeyError: 'target_modules' (or 'r', 'lora_alpha', 'peft_type'), vLLM "
        "with \"Missing required configuration fields: {'target_modules'}\". Tinker's raw "
        "adapters have r and lora_alpha only.",
    .fix = "Write the key into adapter_config.json as the trainer used it.",
    .source = "SGLang lora/lora_config.py; vLLM peft_helper.py; peft LoraConfig",
    .breaks = {.change = "take target_modules away", .config = {{"target_modules", ""}}},
    .check = check,
};

}  // namespace moelora
