#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl034_qwen2_moe_shared_size = {
    .id = "SGL034",
    .name = "qwen2-moe-shared-size",
    .cause = &sglang::cause::qwen2_moe_shared_size,
    .engine = &engines::sglang,
    .what =
        "gate/up is a target, and the model's shared expert is not as wide as its dense layers.",
    .why =
        "SGLang sizes the buffer of the shared expert by intermediate_size: \"LoRA B output dim "
        "11264 does not match base partition prefix dim 40960 for 2 slices.\" when it starts, "
        "although no tensor of the adapter may be on a shared expert.",
    .fix = "Adapt attention only, or merge the adapter into the base model: no option helps.",
    .source = "SGLang lora/utils.py, get_default_hidden_dim; measured",
    .breaks = {.change = "a Qwen2-MoE base",
               .base_config = {{"model_type", R"("qwen2_moe")"},
                               {"architectures", R"(["Qwen2MoeForCausalLM"])"},
                               {"num_experts", "8"},
                               {"shared_expert_intermediate_size", "40"}}},
};

}  // namespace moelora
