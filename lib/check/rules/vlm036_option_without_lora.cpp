#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm036_option_without_lora = {
    .id = "VLM036",
    .name = "option-without-lora",
    .cause = &vllm::cause::option_without_lora,
    .engine = &engines::vllm,
    .since = "0.33",
    .whole_deployment = true,
    .what = "An option of the server that LoRA excludes: a MegaMoE backend, sharded sampling.",
    .why =
        "Megakernels compute all of the experts in one, without a place for LoRA: \"LoRA is not "
        "supported with moe_backend='deep_gemm_mega_moe'. Disable LoRA or select a MoE backend "
        "that supports LoRA.\" With --enable-batch-sharded-sampling classes that take LoRA on "
        "lm_head (Qwen3.5, Llama 4) end in \"Skipping the logits TP gather is not supported with "
        "an lm_head LoRA.\", whatever the adapter holds.",
    .fix =
        "Start the server with --moe-backend triton, and without --enable-batch-sharded-sampling.",
    .source = "vLLM 0.33.0, config/lora.py, lora/layers/logits_processor.py",
    .breaks = {.change = "serve it with DeepGEMM's megakernel",
               .options = {"moe-backend=deep_gemm_mega_moe"}},
};

}  // namespace moelora
