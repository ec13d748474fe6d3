#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm010_rslora_experts = {
    .id = "VLM010",
    .name = "rslora-experts",
    .cause = &vllm::cause::rslora_experts,
    .config_key = "use_rslora",
    .engine = &engines::vllm,
    .until = "0.30",
    .what = "rsLoRA on numbered or shared-outer experts.",
    .why =
        "pack_moe takes alpha / r for experts whatever use_rslora says: their deltas are sqrt(r) "
        "too weak, without a word. Attention and stacked experts are scaled right.",
    .fix =
        "Set use_rslora to false and lora_alpha to alpha * sqrt(r) in adapter_config.json: the "
        "same scale, spelled out. Or use vLLM 0.30 or later.",
    .remedy = Remedy::for_engine,
    .source = "vLLM issue 55545, PR 55548",
    .breaks = {.change = "set use_rslora",
               .engine = "vllm@0.29",
               .config = {{"use_rslora", "true"}}},
};

}  // namespace moelora
