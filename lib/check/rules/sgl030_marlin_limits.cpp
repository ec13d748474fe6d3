#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/check/specimen.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

extern const Rule sgl030_marlin_limits;
const Rule sgl030_marlin_limits = {
    .id = "SGL030",
    .name = "marlin-limits",
    .cause = &sglang::cause::marlin_limits,
    .engine = &engines::sglang,
    .needs_base = true,
    .what =
        "The base is quantised for Marlin (compressed-tensors, ModelOpt NVFP4), and its expert "
        "LoRA has limits.",
    .why =
        "Marlin's expert LoRA runs on compute capability 9 or more (\"MarlinLoraRunnerCore "
        "requires CUDA compute capability >= 9\") and with SiLU experts (\"Only SiLU activation is "
        "supported.\").",
    .fix = "Serve on a newer GPU, or the unquantised model.",
    .source = "SGLang PR 21858; lora/lora_moe_runner_marlin.py",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "a compressed-tensors base on compute capability 8",
               .engine = "sglang",
               .apply =
                   [](Specimen& specimen) {
                     set_option(specimen, "quantization=compressed-tensors");
                     specimen.options.compute_capability = 8.0;
                   }},
};

}  // namespace moelora
