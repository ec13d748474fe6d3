#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm020_ep_options = {
    .id = "VLM020",
    .name = "ep-options",
    .cause = &vllm::cause::ep_options,
    .engine = &engines::vllm,
    .whole_deployment = true,
    .what = "Expert parallel options that LoRA on experts refuses.",
    .why =
        "\"Fused MoE LoRA does not support enable_expert_parallel=True together with "
        "fully_sharded_loras=True. Disable one of them.\"; \"Fused MoE LoRA with EP currently "
        "only supports all2all_backend='allgather_reducescatter', got ...\"; until 2026-05-09 "
        "\"EP support for Fused MoE LoRA is not implemented yet.\"",
    .fix =
        "Leave out --fully-sharded-loras, use --all2all-backend allgather_reducescatter, or serve "
        "without --enable-expert-parallel.",
    .source = "vLLM PR 40867",
    .breaks = {.change = "ask for expert parallel and fully sharded LoRA",
               .options = {"enable-expert-parallel=on", "fully-sharded-loras=on", "tp-size=2"}},
};

}  // namespace moelora
