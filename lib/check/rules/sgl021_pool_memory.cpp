#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/specimen.h"

namespace moelora {

const Rule sgl021_pool_memory = {
    .id = "SGL021",
    .name = "pool-memory",
    .severity = Severity::warning,
    .engine = &engines::sglang,
    .needs_base = true,
    .whole_deployment = true,
    .what = "The pool of adapters needs more memory than --gpu-memory.",
    .why =
        "SGLang allocates --max-loras-per-batch slots (8; the base model takes one) of every "
        "target "
        "in every layer, dense layers included: E x R x (2H + 3I + H) values a layer and slot for "
        "experts of their own factors. Qwen3-30B-A3B at rank 32: 26.5 GB, or 7.4 GB shared-outer.",
    .fix =
        "Lower --max-loras-per-batch or --max-lora-rank, name fewer --lora-target-modules, or "
        "spread the server over more GPUs.",
    .source = "SGLang lora/mem_pool.py, init_buffers; issue 22864",
    .breaks = {.change = "give the server 64 KiB",
               .apply = [](Specimen& specimen) { specimen.options.gpu_memory = 64 << 10; }},
    .check = report_slot_memory,
};

}  // namespace moelora
