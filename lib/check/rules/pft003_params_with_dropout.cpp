#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft003_params_with_dropout = {
    .id = "PFT003",
    .name = "params-with-dropout",
    .cause = &peft::cause::wrapper_limits,
    .engine = &engines::peft,
    .what = "target_parameters with dropout, DoRA, lora_bias or fan_in_fan_out.",
    .why =
        "PEFT wraps a parameter rather than a module and stops: \"lora.ParamWrapper does not "
        "work with lora_dropout != 0.\"",
    .fix = "Set lora_dropout to 0: it does nothing when serving. DoRA and biases cannot be kept.",
    .remedy = Remedy::for_engine,
    .source = "peft lora/layer.py ParamWrapper",
    .breaks = {.specimen = "qwen3_moe_stacked_params",
               .change = "say \"lora_dropout\": 0.05",
               .config = {{"lora_dropout", "0.05"}}},
};

}  // namespace moelora
