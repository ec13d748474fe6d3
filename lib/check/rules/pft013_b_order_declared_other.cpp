#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft013_b_order_declared_other = {
    .id = "PFT013",
    .name = "peft-reads-other-b-order",
    .cause = &peft::cause::other_b_order,
    .config_key = "lora_B_layout",
    .engine = &engines::peft,
    .what =
        "The config tells that a stacked lora_B is grouped by expert; PEFT reads its own order.",
    .why =
        "PEFT reads column k*E + e and looks at no marker: a file whose columns are grouped by "
        "expert (Unsloth until 2026-09-17) is loaded with its rank columns dealt to other experts, "
        "without a word.",
    .fix = "Load it with the Unsloth that wrote it.",
    .remedy = Remedy::for_engine,
    .source = "unsloth-zoo PR 1269; peft lora/layer.py ParamWrapper",
    .breaks = {.specimen = "gpt_oss_stacked_params",
               .change = "say grouped_by_expert in the config",
               .config = {{"auto_mapping", R"({"lora_B_layout": "grouped_by_expert"})"}}},
};

}  // namespace moelora
