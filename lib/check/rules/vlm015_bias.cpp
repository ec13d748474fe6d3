#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm015_bias = {
    .id = "VLM015",
    .name = "bias",
    .cause = &vllm::cause::bias,
    .config_key = "bias",
    .engine = &engines::vllm,
    .what = "The adapter trains biases.",
    .why =
        "\"Adapter bias is not supported.\" (removed on 2025-10-10); a lora_B.bias tensor \"is "
        "unsupported LoRA weight\". 0.31 alone reads such a tensor and loses it without a word. "
        "Since "
        "0.32 lora_bias is refused: \"vLLM does not support LoRA bias (lora_bias).\"",
    .fix = "Merge the adapter into the base model, or train with bias=\"none\".",
    .remedy = Remedy::for_engine,
    .source = "vLLM PR 25807, lora/peft_helper.py",
    .breaks = {.change = "set bias to lora_only", .config = {{"bias", R"("lora_only")"}}},
};

}  // namespace moelora
