#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm016_silent_partial_copy = {
    .id = "VLM016",
    .name = "silent-partial-copy",
    .cause = &vllm::cause::silent_partial_copy,
    .engine = &engines::vllm,
    .what =
        "A factor smaller than the base's module, or stacked for another number of experts, is "
        "copied in part and served.",
    .why =
        "Every copy goes to buffer[:rows, :columns] of a zeroed slot: what is smaller than the "
        "module (another model's size, a cut file) leaves the rest zero; rows that divide by the "
        "base's experts are re-read as those. Where a layer's values are its keys (Gemma 4's "
        "attention_k_eq_v), k_proj's delta goes to the keys alone, and the values, which trained "
        "with it, stay the base's. Nothing is said.",
    .fix =
        "Train on this base model, or serve the adapter with the one it was trained on. Of keys "
        "that "
        "are values: merge the adapter into the base, or train without k_proj.",
    .source =
        "vLLM lora/layers/*.py, set_lora; gemma4.py of 0.33.0 and transformers' "
        "modeling_gemma4.py; oracles pe_small_H, stacked_8_experts",
    .breaks = {.change = "cut q_proj's lora_A to 48 of 64 columns",
               .apply =
                   [](Specimen& specimen) {
                     cut_tensors(specimen, "layers.0.self_attn.q_proj.lora_A", 1, 48);
                   }},
    .implies = {"MOD002"},
};

}  // namespace moelora
