#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm034_no_expert_lora = {
    .id = "VLM034",
    .name = "no-expert-lora",
    .cause = &vllm::cause::no_expert_lora,
    .engine = &engines::vllm,
    .until = "0.11.1",
    .what = "Routed experts on a vLLM that has no LoRA on them.",
    .why =
        "\"vLLM currently does not support fused MoE LoRA inference. Please ensure that the loaded "
        "LoRA model does not contain expert weights.\" The first expert LoRA is of 2025-10-21; "
        "before, experts' names are refused (\"expected target modules in {...} but received "
        "[...]\") or loaded and dropped.",
    .fix = "Use vLLM 0.11.1 or later; or train without experts.",
    .source = "vLLM PR 21229",
    .breaks = {.change = "serve it with the vLLM of 2025-10-20", .engine = "vllm@2025-10-20"},
};

}  // namespace moelora
