#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl036_moe_buffer_missing = {
    .id = "SGL036",
    .name = "moe-buffer-missing",
    .cause = &sglang::cause::moe_buffer_missing,
    .engine = &engines::sglang,
    .until = "0.5.10",
    .what =
        "Expert LoRA of a model without shared experts, or whose config does not spell "
        "num_experts, on the first release.",
    .why =
        "0.5.10rc0 allocates the buffers of experts only where the config has num_experts and "
        "shared_expert_intermediate_size: KeyError 'gate_up_proj_moe' when it starts, for "
        "Qwen3-MoE (no shared experts), GPT-OSS (num_local_experts, intermediate_size) and "
        "DeepSeek (n_routed_experts).",
    .fix = "Use SGLang 0.5.10 or newer.",
    .source = "SGLang PRs 21466 and 21570; miles PR 798",
    .breaks = {.change = "serve it with SGLang 0.5.10rc0", .engine = "sglang@0.5.10rc0"},
};

}  // namespace moelora
