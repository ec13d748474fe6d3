#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl033_ignored_tensors = {
    .id = "SGL033",
    .name = "ignored-tensors",
    .cause = &sglang::cause::ignored_tensors,
    .engine = &engines::sglang,
    .what = "The adapter has tensors that SGLang reads and drops without a word.",
    .why =
        "Dropped are lora_B.bias (the lora_B.weight behind it takes its place), a saved lm_head, "
        "tensors without layers.N in their names, 3-D shared_experts, expert tensors of a dense "
        "layer or base, and the dense MLP of Qwen MoE models, which SGLang builds with experts in "
        "every layer.",
    .fix =
        "Remove the tensors if the adapter works without them; else merge the adapter into the "
        "base model.",
    .remedy = Remedy::for_engine,
    .source = "SGLang lora/lora.py, _process_weight; lora/mem_pool.py",
    .breaks = {.change = "save lm_head whole",
               .config = {{"modules_to_save", R"(["lm_head"])"}},
               .apply =
                   [](Specimen& specimen) {
                     set_tensor(specimen, "base_model.model.lm_head.weight", {160, 64});
                   }},
};

}  // namespace moelora
