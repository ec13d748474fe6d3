#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl041_numbered_shared_experts = {
    .id = "SGL041",
    .name = "numbered-shared-experts",
    .cause = &sglang::cause::numbered_shared_experts,
    .engine = &engines::sglang,
    .since = "0.5.23",
    .what = "Names of shared experts have a number: shared_experts.0.gate_proj.",
    .why =
        "SGLang holds shared experts as one module and ends the first request with \"Cannot load "
        "LoRA weight '..': layer L has no matching target for indexed shared-expert weights.\"; "
        "before 0.5.23 they took the place of the routed expert of that number, without a word.",
    .fix = "Remove the number where there is one shared expert; else merge the adapter.",
    .source = "SGLang lora/mem_pool.py, load_lora_weight_to_buffer",
    .breaks = {.specimen = "deepseek_v3_per_expert",
               .change = "write shared_experts.0. for shared_experts.",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, ".shared_experts.", ".shared_experts.0.");
                   }},
    .implies = {"MOD001"},
};

}  // namespace moelora
