#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm008_moe_rank_128 = {
    .id = "VLM008",
    .name = "moe-rank-128",
    .cause = &vllm::cause::moe_rank_128,
    .engine = &engines::vllm,
    .since = "0.27",
    .whole_deployment = true,
    .what = "--max-lora-rank above 128 on a model with routed experts.",
    .why =
        "The one-shot kernel asserts it at warm-up, whatever the adapter's own rank: "
        "\"fused_moe_lora_one_shot supports max_lora_rank<=128; got rank=256\". 256, 320 and 512 "
        "are accepted on the command line.",
    .fix = "Start the server with --max-lora-rank 128 or less.",
    .source = "vLLM issue 55158, PR 55161 (open)",
    .breaks = {.change = "start with --max-lora-rank 256", .options = {"max-lora-rank=256"}},
};

}  // namespace moelora
