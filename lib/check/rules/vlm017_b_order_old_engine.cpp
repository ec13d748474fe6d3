#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm017_b_order_old_engine = {
    .id = "VLM017",
    .name = "b-order-old-engine",
    .cause = &vllm::cause::b_order_old_engine,
    .engine = &engines::vllm,
    .until = "0.14",
    .what =
        "A stacked lora_B on a vLLM that reads its columns in another order than PEFT writes them.",
    .why =
        "Until 2025-12-31 vLLM read column e*r + k; PEFT writes k*E + e. gpt-oss-20b with a "
        "text-to-SQL adapter agreed with Transformers on 0 of 100 answers before the change, on "
        "98 after. Nothing is said.",
    .fix = "Use a vLLM from 2025-12-31 on.",
    .remedy = Remedy::for_engine,
    .source = "vLLM PR 31534",
    .breaks = {.specimen = "gpt_oss_stacked_params",
               .change = "serve it with the vLLM of 2025-12-01",
               .engine = "vllm@2025-12-01"},
};

}  // namespace moelora
