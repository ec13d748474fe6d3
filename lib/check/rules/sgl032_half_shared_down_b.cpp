#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl032_half_shared_down_b = {
    .id = "SGL032",
    .name = "half-shared-down-b",
    .cause = &sglang::cause::half_shared_down_b,
    .engine = &engines::sglang,
    .what = "All experts share lora_B of down, and not lora_A of gate and up.",
    .why =
        "Only lora_A of gate and up shows SGLang that an adapter is shared-outer. Without that the "
        "(1, H, r) tensor of down goes to expert 0, and all other experts get a zero delta from "
        "down. Nothing says so.",
    .fix = "Export the adapter again with every expert's own factors.",
    .remedy = Remedy::for_engine,
    .source = "SGLang lora/mem_pool.py, _iter_local_expert_weights",
    .breaks = {.specimen = "qwen3_moe_shared_outer",
               .change = "give every expert its own lora_A of w1 and w3",
               .apply =
                   [](Specimen& specimen) {
                     replace_tensors(specimen, "w1.lora_A", {8, 4, 64});
                     replace_tensors(specimen, "w3.lora_A", {8, 4, 64});
                   }},
};

}  // namespace moelora
