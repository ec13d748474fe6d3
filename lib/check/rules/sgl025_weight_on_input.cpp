#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl025_weight_on_input = {
    .id = "SGL025",
    .name = "weight-on-input",
    .cause = &sglang::cause::weight_on_input,
    .engine = &engines::sglang,
    .what = "The model weights the experts' input rather than their output (Llama 4).",
    .why =
        "SGLang leaves the delta of gate and up unweighted and weights that of down, where the "
        "base does the reverse: every expert delta is wrong, and nothing says so.",
    .fix = "Merge the adapter into the base model, or train attention only.",
    .source = "SGLang moe_runner/triton_utils/fused_moe.py, lora_moe_runners.py",
    .breaks = {.change = "a Llama 4 base",
               .base_config = {{"model_type", R"("llama4_text")"},
                               {"architectures", R"(["Llama4ForCausalLM"])"},
                               {"intermediate_size", "24"},
                               {"intermediate_size_mlp", "96"},
                               {"interleave_moe_layer_step", "1"},
                               {"moe_intermediate_size", ""}},
               .apply =
                   [](Specimen& specimen) { rename_tensors(specimen, ".mlp.", ".feed_forward."); }},
    .implies = {"SGL023"},
};

}  // namespace moelora
