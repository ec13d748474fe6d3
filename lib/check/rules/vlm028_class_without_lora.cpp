#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm028_class_without_lora = {
    .id = "VLM028",
    .name = "class-without-lora",
    .cause = &vllm::cause::class_without_lora,
    .engine = &engines::vllm,
    .whole_deployment = true,
    .what = "A model class that cannot start with LoRA in this version.",
    .why =
        "GraniteMoe and Llama 4 text in 2026-05: \"To support LoRA for MoE model, "
        "'get_expert_mapping' must be implemented\"; ExaoneMoe: \"'LoRAConfig' object has no "
        "attribute 'lora_extra_vocab_size'\"; a stacked class without architectures in "
        "config.json: \"model_config.architectures must be defined for MoE LoRA.\"; LoRA on "
        "lm_head: \"When using LoRA, vocab size must be <= 258048\".",
    .fix = "Use another version of vLLM, or merge the adapter into the base model.",
    .source = "vLLM issues 53470, 46247, 31923; oracles/vllm.md section 4, 13",
    .breaks = {.specimen = "gpt_oss_stacked_params",
               .change = "remove architectures from the base's config.json",
               .base_config = {{"architectures", ""}}},
};

}  // namespace moelora
