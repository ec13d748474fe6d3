#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm022_shared_outer_flag = {
    .id = "VLM022",
    .name = "vllm-shared-outer-flag",
    .cause = &vllm::cause::shared_outer_flag,
    .engine = &engines::vllm,
    .what =
        "Shared outer experts (experts.w1/w2/w3) without the server's switch, or with a switch "
        "that does not fit.",
    .why =
        "Without --enable-moe-shared-loras (since 2026-07-19) the names fail at the gate: "
        "\"expected target modules in {...} but received ['...experts.w1', ...]\". With it a "
        "stacked class needs --enable-mixed-moe-lora-format as well before 0.32, else a bare "
        "AssertionError; since 0.32 it takes shared outer factors alone under it; "
        "and factors of every expert where one is held keep expert 0 alone, without a word.",
    .fix = "Export every expert's own factors.",
    .remedy = Remedy::for_engine,
    .source = "vLLM PR 48884; Megatron-Bridge PR 5588 (expand_shared_outer)",
    .breaks = {.specimen = "qwen3_moe_shared_outer", .change = "serve it without the switch"},
};

}  // namespace moelora
