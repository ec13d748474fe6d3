#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/params_conflicts.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  if (!context.subject().parsed_config) return;
  for (const ParamsConflict& conflict : params_conflicts(*context.subject().parsed_config))
    context
        .report_config(conflict.key, conflict.found + ", and PEFT refuses it for target_parameters")
        .server_text =
        fmt::format("ValueError: lora.ParamWrapper does not work with {}", conflict.refuses);
}

}  // namespace

const Rule pft003_params_with_dropout = {
    .id = "PFT003",
    .name = "params-with-dropout",
    .engine = &engines::peft,
    .what = "target_parameters with dropout, DoRA, lora_bias or fan_in_fan_out.",
    .why =
        "PEFT wraps a parameter rather than a module and stops: \"lora.ParamWrapper does not "
        "work with lora_dropout != 0.\"",
    .fix = "Set lora_dropout to 0: it does nothing when serving. DoRA and biases cannot be kept.",
    .source = "peft lora/layer.py ParamWrapper",
    .breaks = {.specimen = "qwen3_moe_stacked_params",
               .change = "say \"lora_dropout\": 0.05",
               .config = {{"lora_dropout", "0.05"}}},
    .implies = {"CFG006"},
    .check = check,
};

}  // namespace moelora
