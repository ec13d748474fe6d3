#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm014_dora = {
    .id = "VLM014",
    .name = "vllm-dora",
    .cause = &vllm::cause::dora,
    .config_key = "use_dora",
    .engine = &engines::vllm,
    .what = "DoRA.",
    .why =
        "\"vLLM does not yet support DoRA.\"; magnitude tensors \"... is unsupported LoRA "
        "weight\". An open PR brings dense modules only.",
    .fix = "Merge the adapter into the base model (merge_and_unload) and serve that.",
    .source = "vLLM lora/peft_helper.py; issue 6983, PR 47395 (open)",
    .breaks = {.change = "set use_dora", .config = {{"use_dora", "true"}}},
};

}  // namespace moelora
