#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft006_half_of_experts = {
    .id = "PFT006",
    .name = "half-of-experts",
    .cause = &peft::cause::half_of_gate_up,
    .engine = &engines::peft,
    .what = "Numbered experts without gate, up or down, which PEFT joins.",
    .why =
        "PEFT 0.19 and newer joins the experts of a layer for transformers 5: \"Cannot convert "
        "PEFT target(s) gate_proj without also targeting up_proj because they are fused into "
        "gate_up_proj.\", \"torch.cat(): expected a non-empty list of Tensors\", or, where down is "
        "not targeted, nothing receives gate and up.",
    .fix = "Load it with transformers 4, where the experts are modules.",
    .remedy = Remedy::for_engine,
    .source = "oracles/peft.md",
    .breaks = {.change = "remove down_proj",
               .engine = "peft",
               .apply = [](Specimen& specimen) { remove_module(specimen, "down_proj"); }},
};

}  // namespace moelora
