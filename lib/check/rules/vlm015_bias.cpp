#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

extern const Rule vlm015_bias;
const Rule vlm015_bias = {
    .id = "VLM015",
    .name = "bias",
    .cause = &vllm::cause::bias,
    .config_key = "bias",
    .engine = &engines::vllm,
    .needs_base = true,
    .what = "The adapter trains biases.",
    .why =
        "\"Adapter bias is not supported.\" (removed on 2025-10-10); a lora_B.bias tensor \"is "
        "unsupported LoRA weight\".",
    .fix = "Merge the adapter into the base model, or train with bias=\"none\".",
    .source = "vLLM PR 25807, lora/peft_helper.py",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "set bias to lora_only",
               .engine = "vllm",
               .apply = [](Specimen& specimen) { set_config(specimen, "bias", R"("lora_only")"); }},
};

}  // namespace moelora
