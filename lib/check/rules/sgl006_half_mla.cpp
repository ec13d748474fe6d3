#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl006_half_mla = {
    .id = "SGL006",
    .name = "half-mla",
    .cause = &sglang::cause::half_mla,
    .engine = &engines::sglang,
    .what = "One of q_a_proj and kv_a_proj_with_mqa is adapted without the other.",
    .why =
        "SGLang holds both as fused_qkv_a_proj_with_mqa. Without q_a_proj nothing is stacked: "
        "\"Cannot find target module name for ...kv_a_proj_with_mqa.lora_A.weight in {...}\". "
        "Without kv_a_proj_with_mqa it puts zeros of q_a_proj's own shape in its place: \"LoRA "
        "buffer shape torch.Size([2112, 8]) does not match weight shape torch.Size([3072, 8]).\", "
        "unless both happen to have as many rows.",
    .fix = "Add the missing one with an all-zero lora_B of its own rows and the same rank.",
    .remedy = Remedy::for_engine,
    .source = "SGLang lora/lora.py, normalize_fused_qkv_a_proj; PR 22323",
    .breaks = {.specimen = "deepseek_v3_per_expert",
               .change = "remove q_a_proj",
               .apply = [](Specimen& specimen) { remove_module(specimen, "q_a_proj"); }},
};

}  // namespace moelora
