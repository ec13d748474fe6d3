#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm029_b_order_declared_other = {
    .id = "VLM029",
    .name = "b-order-declared-other",
    .cause = &vllm::cause::b_order_declared_other,
    .config_key = "lora_B_layout",
    .engine = &engines::vllm,
    .since = "0.14",
    .what =
        "The config says that a stacked lora_B is grouped by expert; this engine reads PEFT's "
        "order.",
    .why =
        "vLLM reads column k*E + e and never looks at lora_B_layout: a file whose columns are "
        "grouped by expert (Unsloth until 2026-09-17) is served with its rank columns dealt to "
        "other experts, without a word.",
    .fix = "Export it with PEFT's order of columns.",
    .remedy = Remedy::for_engine,
    .source = "unsloth-zoo PR 1269; oracle peft_params_grouped_b",
    .breaks = {.specimen = "gpt_oss_stacked_params",
               .change = "say grouped_by_expert in the config",
               .config = {{"auto_mapping", R"({"lora_B_layout": "grouped_by_expert"})"}}},
};

}  // namespace moelora
