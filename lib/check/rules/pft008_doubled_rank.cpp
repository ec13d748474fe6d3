#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft008_doubled_rank = {
    .id = "PFT008",
    .name = "doubled-rank",
    .cause = &peft::cause::doubled_rank,
    .engine = &engines::peft,
    .what = "Experts as target_parameters beside gate_proj and up_proj in target_modules.",
    .why =
        "For these two names PEFT gives gate_up_proj twice the rank, whatever the file holds, and "
        "stops: \"size mismatch for ... experts.base_layer.lora_A.default.weight\".",
    .fix = "Take gate_proj and up_proj out of target_modules.",
    .remedy = Remedy::for_engine,
    .source = "oracles/peft.md",
    .breaks = {.specimen = "qwen3_moe_stacked_params",
               .change = "name gate_proj, up_proj and down_proj as modules too",
               .apply =
                   [](Specimen& specimen) {
                     set_targets(specimen, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                            "up_proj", "down_proj"});
                   }},
    .implies = {"CFG005"},
};

}  // namespace moelora
