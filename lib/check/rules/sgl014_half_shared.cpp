#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl014_half_shared = {
    .id = "SGL014",
    .name = "half-shared",
    .cause = &sglang::cause::half_shared,
    .engine = &engines::sglang,
    .what = "The experts share some outer factors and not the others.",
    .why =
        "A shared-outer server holds one lora_A of gate and up and one lora_B of down. Where an "
        "adapter shares the first and not the second: \"experts_shared_outer_loras is enabled but "
        "down_proj_moe lora_B has expert_dim=128 (expected 1).\"; where it shares w1 and not w3, "
        "stacking them fails: \"Sizes of tensors must match except in dimension 1. Expected size 1 "
        "but got size 128 for tensor number 1 in the list.\".",
    .fix = "Export the adapter again with every expert's own factors.",
    .remedy = Remedy::for_engine,
    .source = "SGLang lora/mem_pool.py; PR 21466",
    .breaks = {.specimen = "qwen3_moe_shared_outer",
               .change = "give every expert its own lora_B of w2",
               .apply =
                   [](Specimen& specimen) {
                     replace_tensors(specimen, "w2.lora_B", {8, 64, 4});
                   }},
};

}  // namespace moelora
