#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl034_qwen2_moe_shared_size = {
    .id = "SGL034",
    .name = "qwen2-moe-shared-size",
    .cause = &sglang::cause::qwen2_moe_shared_size,
    .engine = &engines::sglang,
    .until = "0.5.21",
    .what =
        "gate/up is a target, and the model's shared expert is not as wide as its dense layers.",
    .why =
        "Before 0.5.21 SGLang sizes the buffer of the shared expert by intermediate_size: \"LoRA B "
        "output dim "
        "11264 does not match base partition prefix dim 40960 for 2 slices.\" when it starts, "
        "although no tensor of the adapter may be on a shared expert.",
    .fix = "Use SGLang 0.5.21 or newer; on this version adapt attention only.",
    .source = "SGLang lora/utils.py, get_default_hidden_dim; measured in 0.5.20 and 0.5.21",
    .breaks = {.change = "a Qwen2-MoE base",
               .engine = "sglang@0.5.20",
               .base_config = {{"model_type", R"("qwen2_moe")"},
                               {"architectures", R"(["Qwen2MoeForCausalLM"])"},
                               {"num_experts", "8"},
                               {"shared_expert_intermediate_size", "40"}}},
};

}  // namespace moelora
