#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/params_conflicts.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  if (!context.subject().parsed_config) return;
  if (!chosen(context, engines::peft).empty()) return;  // PFT003
  for (const ParamsConflict& conflict : params_conflicts(*context.subject().parsed_config))
    context.report_config(conflict.key, conflict.found +
                                            " beside target_parameters, which PEFT refuses: this "
                                            "config was written by something else");
}

}  // namespace

const Rule cfg006_impossible_combination = {
    .id = "CFG006",
    .name = "impossible-combination",
    .severity = Severity::warning,
    .what = "target_parameters together with dropout, DoRA or lora_bias.",
    .why =
        "PEFT's ParamWrapper refuses these, so that a patched or another trainer wrote the file "
        "(axolotl patches dropout away, which changes nothing when serving); what its tensors "
        "mean is its own.",
    .fix = "Set lora_dropout to 0 where that is all; else ask the trainer's documentation.",
    .remedy = Remedy::for_engine,
    .source = "peft lora/layer.py ParamWrapper; axolotl lora_target_parameters",
    .breaks = {.specimen = "qwen3_moe_stacked_params",
               .change = "say \"lora_dropout\": 0.05",
               .config = {{"lora_dropout", "0.05"}}},
    .check = check,
};

}  // namespace moelora
