// An example of a rule.

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const auto& config = context.subject().parsed_config;
  if (config && config->lora_alpha == 0 && config->alpha_pattern.keys().size() == 0)
    context.report_config("lora_alpha", "is 0: every delta is multiplied by 0");
}

}  // namespace

const Rule cfg901_zero_alpha = {
    .id = "CFG901",
    .name = "zero-alpha",
    .what = "lora_alpha is 0.",
    .why = "The scale is lora_alpha / r, so that the adapter changes nothing. No server complains.",
    .fix = "Set lora_alpha to the value of the training.",
    .source = "PEFT lora/layer.py, update_layer",
    .breaks = {.change = "say \"lora_alpha\": 0", .config = {{"lora_alpha", "0"}}},
    .check = check,
};

}  // namespace moelora
