#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft012_not_targeted = {
    .id = "PFT012",
    .name = "not-targeted",
    .cause = &peft::cause::undeclared,
    .engine = &engines::peft,
    .what = "Tensors of modules or parameters that the config does not target.",
    .why =
        "PEFT makes no layer for them; the tensors are unexpected keys, of which PeftModel says "
        "nothing.",
    .fix = "Add the modules to target_modules, or take the tensors out.",
    .remedy = Remedy::for_engine,
    .source = "oracles/peft.md",
    .breaks = {.specimen = "gpt_oss_attention",
               .change = "take q_proj out of target_modules",
               .engine = "peft",
               .apply =
                   [](Specimen& specimen) {
                     set_targets(specimen, {"k_proj", "v_proj", "o_proj"});
                   }},
};

}  // namespace moelora
