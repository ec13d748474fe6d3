#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/specimen.h"

namespace moelora {

const Rule vlm023_slot_memory = {
    .id = "VLM023",
    .name = "slot-memory",
    .severity = Severity::warning,
    .engine = &engines::vllm,
    .needs_base = true,
    .whole_deployment = true,
    .what = "The LoRA slots need more memory than --gpu-memory.",
    .why =
        "vLLM allocates max_loras slots of max_lora_rank for every module that can take LoRA as "
        "soon as LoRA is enabled, whatever the adapters hold: E x R x (3H + 3I) values a layer "
        "for numbered experts, E x R x (2H + 3I) for stacked ones. Qwen3-30B-A3B at rank 64: 6.2 "
        "GiB a slot.",
    .fix = "Lower --max-loras or --max-lora-rank, or spread the server over more GPUs.",
    .source = "vLLM lora/layers/fused_moe.py, create_lora_weights; issues 29049, 40913",
    .breaks = {.change = "give the server 64 KiB",
               .apply = [](Specimen& specimen) { specimen.options.gpu_memory = 64 << 10; }},
    .check = report_slot_memory,
};

}  // namespace moelora
