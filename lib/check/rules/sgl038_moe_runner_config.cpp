#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl038_moe_runner_config = {
    .id = "SGL038",
    .name = "moe-runner-config",
    .cause = &sglang::cause::moe_runner_config,
    .engine = &engines::sglang,
    .until = "0.5.13",
    .what =
        "Expert LoRA of DeepSeek or Kimi on a release whose wrapped experts lack "
        "moe_runner_config.",
    .why =
        "The class asks the experts for their moe_runner_config, which LoRA's wrapper does not "
        "pass on: AttributeError when the CUDA graphs are captured.",
    .fix = "Use SGLang 0.5.13 or newer.",
    .source = "SGLang PR 26710",
    .breaks = {.specimen = "deepseek_v3_per_expert",
               .change = "serve it with SGLang 0.5.12",
               .engine = "sglang@0.5.12"},
};

}  // namespace moelora
