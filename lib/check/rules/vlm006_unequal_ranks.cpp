#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm006_unequal_ranks = {
    .id = "VLM006",
    .name = "unequal-ranks",
    .cause = &vllm::cause::unequal_ranks,
    .engine = &engines::vllm,
    .what = "The experts of a layer do not all have one rank (or shape).",
    .why =
        "torch.stack joins one factor of all experts: \"stack expects each tensor to be equal "
        "size, but got [4, 64] at entry 0 and [2, 64] at entry 3\"; since 0.32 \"The experts of "
        "... "
        "have different LoRA ranks for the same projection, which is not supported.\"",
    .fix =
        "Pad the smaller factors with zero rows (lora_A) and columns (lora_B) and keep alpha / r "
        "as it was.",
    .remedy = Remedy::for_engine,
    .source = "vLLM lora/lora_weights.py, pack_moe; oracle pe_ranks_differ_between_experts",
    .breaks = {.change = "cut one expert's gate_proj to rank 2",
               .apply =
                   [](Specimen& specimen) {
                     cut_tensors(specimen, "layers.0.mlp.experts.3.gate_proj.lora_A", 0, 2);
                     cut_tensors(specimen, "layers.0.mlp.experts.3.gate_proj.lora_B", 1, 2);
                   }},
    .implies = {"CFG002"},
};

}  // namespace moelora
