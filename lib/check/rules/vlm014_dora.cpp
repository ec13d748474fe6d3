#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

extern const Rule vlm014_dora;
const Rule vlm014_dora = {
    .id = "VLM014",
    .name = "vllm-dora",
    .cause = &vllm::cause::dora,
    .config_key = "use_dora",
    .engine = &engines::vllm,
    .needs_base = true,
    .what = "DoRA.",
    .why =
        "\"vLLM does not yet support DoRA.\"; magnitude tensors \"... is unsupported LoRA "
        "weight\". An open PR brings dense modules only.",
    .fix = "Merge the adapter into the base model (merge_and_unload) and serve that.",
    .source = "vLLM lora/peft_helper.py; issue 6983, PR 47395 (open)",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "set use_dora",
               .engine = "vllm",
               .apply = [](Specimen& specimen) { set_config(specimen, "use_dora", "true"); }},
};

}  // namespace moelora
