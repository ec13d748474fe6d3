#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm027_base_layer_alone = {
    .id = "VLM027",
    .name = "base-layer-alone",
    .cause = &vllm::cause::base_layer_alone,
    .engine = &engines::vllm,
    .what = "experts.base_layer has a pair in a layer where experts has none.",
    .why =
        "The stacked wrapper looks for the outer pair first: without it nothing is asserted and "
        "the layer stays zero, gate_up included. (The outer pair alone is refused.)",
    .fix =
        "Add an outer pair (down_proj) whose lora_B is zero, or name the pair experts.lora_* and "
        "train both parameters.",
    .remedy = Remedy::for_engine,
    .source = "oracles/vllm.md section 4, 2 (stacked_base_layer_only)",
    .breaks = {.specimen = "gpt_oss_stacked_params",
               .change = "remove the outer pairs",
               .apply = [](Specimen& specimen) { remove_tensors(specimen, ".experts.lora_"); }},
};

}  // namespace moelora
