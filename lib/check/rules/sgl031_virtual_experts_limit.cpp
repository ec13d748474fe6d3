#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl031_virtual_experts_limit = {
    .id = "SGL031",
    .name = "virtual-experts-limit",
    .cause = &sglang::cause::virtual_experts_limit,
    .engine = &engines::sglang,
    .what = "experts x slots is above 8191, and the server uses virtual experts.",
    .why =
        "Virtual experts are numbered expert + slot x experts, and the kernel that sorts tokens by "
        "them takes 8191 at most. The request that needs more fails in the kernel.",
    .fix = "Lower --max-loras-per-batch, or start the server without --lora-use-virtual-experts.",
    .source = "SGLang kernels/ops/moe/virtual_experts.py; PR 22122",
    .breaks = {.specimen = "gpt_oss_stacked",
               .change = "virtual experts in 4096 slots",
               .options = {"lora-use-virtual-experts=on", "max-loras=4096"}},
};

}  // namespace moelora
