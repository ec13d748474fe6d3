#include "lib/check/define_rule.h"
#include "lib/check/specimen.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl030_marlin_limits = {
    .id = "SGL030",
    .name = "marlin-limits",
    .cause = &sglang::cause::marlin_limits,
    .engine = &engines::sglang,
    .what =
        "The base is quantized for Marlin (compressed-tensors, ModelOpt NVFP4), and its expert "
        "LoRA has limits.",
    .why =
        "Marlin's expert LoRA runs on compute capability 9 or more (\"MarlinLoraRunnerCore "
        "requires CUDA compute capability >= 9\") and with SiLU experts (\"Only SiLU activation is "
        "supported.\").",
    .fix = "Serve on a newer GPU, or the unquantized model.",
    .source = "SGLang PR 21858; lora/lora_moe_runner_marlin.py",
    .breaks = {.change = "a compressed-tensors base on compute capability 8",
               .options = {"quantization=compressed-tensors"},
               .apply = [](Specimen& specimen) { specimen.options.compute_capability = 8.0; }},
};

}  // namespace moelora
