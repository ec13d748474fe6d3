#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft007_rescaled_experts = {
    .id = "PFT007",
    .name = "rescaled-experts",
    .cause = &peft::cause::other_scale,
    .engine = &engines::peft,
    .what = "Numbered experts whose scale PEFT works out anew.",
    .why =
        "PEFT 0.19 and newer gives the joined gate_up_proj twice r and lora_alpha: with rsLoRA "
        "gate and up grow by sqrt(2), and alpha_pattern of the numbered names is not looked at.",
    .fix = "Load it with transformers 4, where the experts are modules.",
    .remedy = Remedy::for_engine,
    .source = "oracles/peft.md",
    .breaks = {.change = "say \"use_rslora\": true",
               .engine = "peft",
               .config = {{"use_rslora", "true"}}},
};

}  // namespace moelora
