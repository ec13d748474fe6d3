#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl018_one_sided_experts = {
    .id = "SGL018",
    .name = "one-sided-experts",
    .cause = &sglang::cause::one_sided_experts,
    .engine = &engines::sglang,
    .what = "Only gate/up or only down of the experts is a target.",
    .why =
        "SGLang wraps the experts where gate_up_proj and down_proj both are targets of the server; "
        "else every expert factor is read, kept and never applied. Nothing says so.",
    .fix =
        "Name gate_proj, up_proj and down_proj in target_modules, or start the server with "
        "--lora-target-modules that names them: missing factors are zeros then.",
    .remedy = Remedy::for_engine,
    .source = "SGLang PRs 32376 and 32406, open; lora/lora_manager.py, init_lora_modules",
    .breaks = {.change = "remove down_proj",
               .apply = [](Specimen& specimen) { remove_module(specimen, "down_proj"); }},
};

}  // namespace moelora
