#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft009_nothing_targeted = {
    .id = "PFT009",
    .name = "nothing-targeted",
    .cause = &peft::cause::nothing_targeted,
    .engine = &engines::peft,
    .what = "Targets that name nothing in the model.",
    .why =
        "PEFT stops: \"Target modules {...} not found in the base model.\" or \"No "
        "`target_modules` passed but also no `target_parameters` found.\" Experts have other "
        "names, or are another kind of thing, in this transformers; PEFT 0.19 takes a regular "
        "expression for a list of characters.",
    .fix = "Name the modules of the base model as the transformers that will load it names them.",
    .remedy = Remedy::for_engine,
    .source = "oracles/peft.md",
    .breaks = {.specimen = "gpt_oss_attention",
               .change = "name modules that are not there",
               .engine = "peft",
               .apply =
                   [](Specimen& specimen) {
                     set_targets(specimen, {"wq", "wk"});
                   }},
    .implies = {"CFG005"},
};

}  // namespace moelora
