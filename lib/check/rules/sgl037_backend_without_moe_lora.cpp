#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl037_backend_without_moe_lora = {
    .id = "SGL037",
    .name = "backend-without-moe-lora",
    .cause = &sglang::cause::backend_without_moe_lora,
    .engine = &engines::sglang,
    .what = "A --lora-backend or --moe-runner-backend without expert LoRA.",
    .why =
        "Until 0.5.12 only --lora-backend triton routes tokens to experts as their adapters need "
        "it; csgmv, the default, gives garbage or device-side asserts, and early branches logged "
        "\"Current LoRA backend does not support LoRA on MoE layers; skipping MoE layer\". "
        "--moe-runner-backend triton_kernel, which GPT-OSS gets by itself, ends the start with "
        "\"UnquantizedFusedMoEMethod does not expose quant info for 'triton_kernel'\", before "
        "0.5.19 "
        "with \"LoRA MoE not supported for backend MoeRunnerBackend.TRITON_KERNELS\", before "
        "0.5.11 "
        "with \"'FusedMoE' object has no attribute 'w13_weight'\".",
    .fix = "Start the server with --lora-backend triton --moe-runner-backend triton.",
    .source = "SGLang PRs 24007 and 21375; miles docs",
    .breaks = {.change = "serve it with csgmv on 0.5.11",
               .engine = "sglang@0.5.11",
               .options = {"lora-backend=csgmv"}},
};

}  // namespace moelora
