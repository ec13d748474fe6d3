#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl009_stacked_peft_experts = {
    .id = "SGL009",
    .name = "stacked-peft-experts",
    .cause = &sglang::cause::stacked_peft_experts,
    .engine = &engines::sglang,
    .what = "Experts are stacked parameters as PEFT saves target_parameters.",
    .why =
        "SGLang knows experts by number or as 3-D tensors. experts.base_layer and experts belong "
        "to none of its modules: the first request ends the server with \"Cannot find target "
        "module name for ...mlp.experts.base_layer.lora_A.weight in {...}\". A 2-D "
        "experts.gate_up_proj passes for a dense layer: dropped without a word where the model has "
        "none, else refused for its shape.",
    .fix = "Export the experts one by one, as experts.0.gate_proj.",
    .remedy = Remedy::for_engine,
    .source = "SGLang PRs 25528 and 27381, closed unmerged; lora/mem_pool.py",
    .breaks = {.specimen = "gpt_oss_stacked_params", .change = "serve it with SGLang"},
};

}  // namespace moelora
