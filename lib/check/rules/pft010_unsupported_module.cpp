#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft010_unsupported_module = {
    .id = "PFT010",
    .name = "unsupported-module",
    .cause = &peft::cause::module_not_supported,
    .engine = &engines::peft,
    .what =
        "A target that is neither a Linear nor an embedding: a router class, a layer, Mamba's "
        "out_proj.",
    .why =
        "PEFT stops: \"Target module GptOssTopKRouter() is not supported.\" A router is a "
        "target_parameter, \"mlp.router.weight\".",
    .fix = "Train without it, or merge the adapter into the base model.",
    .remedy = Remedy::for_engine,
    .source = "oracles/peft.md",
    .breaks = {.specimen = "gpt_oss_attention",
               .change = "name the router as a module",
               .engine = "peft",
               .apply =
                   [](Specimen& specimen) {
                     set_targets(specimen, {"q_proj", "k_proj", "v_proj", "o_proj", "router"});
                   }},
    .implies = {"CFG005"},
};

}  // namespace moelora
