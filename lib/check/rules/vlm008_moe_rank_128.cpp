#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm008_moe_rank_128 = {
    .id = "VLM008",
    .name = "moe-rank-128",
    .cause = &vllm::cause::moe_rank_128,
    .engine = &engines::vllm,
    .since = "0.22",
    .until = "0.32",
    .whole_deployment = true,
    .what = "--max-lora-rank above 128 on a model with routed experts.",
    .why =
        "The one-shot kernel asserts it at warm-up, whatever the adapter's own rank: "
        "\"fused_moe_lora_one_shot supports max_lora_rank<=128; got rank=256\". 256, 320 and 512 "
        "are accepted on the command line. 0.32 and later fall back to other kernels.",
    .fix = "Start the server with --max-lora-rank 128 or less, or use vLLM 0.32 or later.",
    .source = "vLLM issue 55158, lora/ops/triton_ops/fused_moe_lora_op.py of 0.22.0 and 0.33.0",
    .breaks = {.change = "start with --max-lora-rank 256",
               .engine = "vllm@0.31",
               .options = {"max-lora-rank=256"}},
};

}  // namespace moelora
