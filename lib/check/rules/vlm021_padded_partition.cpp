#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm021_padded_partition = {
    .id = "VLM021",
    .name = "padded-partition",
    .cause = &vllm::cause::padded_partition,
    .severity = Severity::warning,
    .engine = &engines::vllm,
    .until = "0.33",
    .what =
        "An MXFP4 base under tensor parallelism whose partition of the intermediate size is "
        "padded.",
    .why =
        "MXFP4 backends round the rows of a rank up (64; Marlin 128), and LoRA is cut at rank x "
        "the rounded size while the base is cut at rank x the plain one: from rank 1 on the "
        "experts' deltas are shifted. gpt-oss (2880) at tp 2: the base begins at 1440, LoRA at "
        "1536 or 1472. Confirmed in vLLM's loader, 0.22 to 0.32.",
    .fix =
        "Use vLLM 0.33 or later; or serve with --enable-expert-parallel, on one GPU, or a BF16 "
        "copy of the base.",
    .source = "oracles/vllm.md section 4, 12 (padded_partition)",
    .breaks = {.specimen = "gpt_oss_stacked_params",
               .change = "serve an MXFP4 base on two ranks",
               .engine = "vllm@0.32",
               .options = {"quantization=mxfp4", "tp-size=2"}},
};

}  // namespace moelora
