#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm005_incomplete_experts = {
    .id = "VLM005",
    .name = "incomplete-experts",
    .cause = &vllm::cause::incomplete_experts,
    .engine = &engines::vllm,
    .what =
        "A layer's experts do not all have gate, up and down, or only one of the stacked "
        "parameters is there.",
    .why =
        "pack_moe asserts that every expert of a layer has all three projections, the stacked "
        "wrapper that both gate_up and down are there; vLLM's own comment calls the rest an edge "
        "case. The server says \"AssertionError\" and nothing else; where only a lora_A or a "
        "lora_B is missing, \"expected Tensor as element 3 in argument 0, but got NoneType\".",
    .fix = "Add the absent pairs with an all-zero lora_B: the delta stays the same.",
    .remedy = Remedy::for_engine,
    .source =
        "vLLM lora/lora_weights.py, pack_moe; oracles pe_missing_expert, peft_params_down_only",
    .breaks = {.change = "remove one expert's down_proj",
               .apply =
                   [](Specimen& specimen) { remove_tensors(specimen, "experts.3.down_proj"); }},
    .implies = {"MOD005"},
};

}  // namespace moelora
