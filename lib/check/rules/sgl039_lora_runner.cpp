#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl039_lora_runner = {
    .id = "SGL039",
    .name = "lora-runner",
    .cause = &sglang::cause::lora_runner,
    .engine = &engines::sglang,
    .whole_deployment = true,
    .what = "--lora-backend triton_v2 or a runner named lora_* that does not suit the rest.",
    .why =
        "Since 0.5.23 --moe-runner-backend lora_cutedsl, lora_triton or lora_marlin serves expert "
        "LoRA together with --lora-backend triton_v2, and neither without the other: \"Routed MoE "
        "LoRA must pair --lora-backend triton_v2 with --moe-runner-backend ..\". They take BF16, "
        "128-block FP8 and NVFP4 experts without biases (so no GPT-OSS), SiLU or ReLU2, weights of "
        "the router on the output (so no Llama-4), compute capability 9 or 10, and experts that "
        "stay where they are.",
    .fix =
        "Start the server with --lora-backend triton --moe-runner-backend triton, or change "
        "what the message names.",
    .source = "SGLang 0.5.23, arg_groups/lora_hook.py, lora/layers.py, lora/moe/runner.py",
    .breaks = {.change = "serve it with triton_v2 and the runner triton",
               .options = {"lora-backend=triton_v2", "moe-runner-backend=triton"}},
};

}  // namespace moelora
