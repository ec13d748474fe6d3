#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm002_gpt_oss_mixed_mode = {
    .id = "VLM002",
    .name = "gpt-oss-mixed-mode",
    .cause = &vllm::cause::gpt_oss_mixed_mode,
    .severity = Severity::warning,
    .engine = &engines::vllm,
    .since = "0.22rc1",
    .what = "Experts of gpt-oss are served in the mixed format.",
    .why =
        "In the mixed format vLLM adds gate's delta to the first half of the columns and up's to "
        "the second, while its MXFP4 backends keep gpt-oss's gate and up interleaved: a delta may "
        "land on the other projection, without a word. Read in vLLM's source, not run; none of "
        "vLLM's own gpt-oss tests uses the mixed format.",
    .fix = "Start the server without --enable-mixed-moe-lora-format, and serve the stacked layout.",
    .source = "vLLM PR 42242, lora/layers/fused_moe.py",
    .breaks = {.specimen = "gpt_oss_stacked_params",
               .change = "switch the mixed format on",
               .options = {"enable-mixed-moe-lora-format=on", "is-3d-lora-weight=on"}},
};

}  // namespace moelora
