#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

extern const Rule vlm010_rslora_experts;
const Rule vlm010_rslora_experts = {
    .id = "VLM010",
    .name = "rslora-experts",
    .cause = &vllm::cause::rslora_experts,
    .config_key = "use_rslora",
    .engine = &engines::vllm,
    .until = "0.29",
    .needs_base = true,
    .what = "rsLoRA on numbered or shared-outer experts.",
    .why =
        "pack_moe takes alpha / r for experts whatever use_rslora says: their deltas are sqrt(r) "
        "too weak, without a word. Attention and stacked experts are scaled right.",
    .fix =
        "Set use_rslora to false and lora_alpha to alpha * sqrt(r) in adapter_config.json: the "
        "same scale, spelled out. Or use vLLM from 2026-09-16 on (0.29).",
    .source = "vLLM issue 55545, PR 55548",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "set use_rslora",
               .engine = "vllm",
               .apply = [](Specimen& specimen) { set_config(specimen, "use_rslora", "true"); }},
};

}  // namespace moelora
