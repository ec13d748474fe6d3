#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl007_w_names_in_targets = {
    .id = "SGL007",
    .name = "w-names-in-targets",
    .cause = &sglang::cause::w_names_in_targets,
    .engine = &engines::sglang,
    .what = "target_modules has a name that SGLang has no buffer for: w1, w2, w3, experts.",
    .why =
        "SGLang renames w1, w3 and w2 in tensor names, not in the config: \"get_hidden_dim not "
        "implemented for w1\" when it starts, or \"LoRA adapter 'my-lora' contains target modules "
        "['w1', 'w2', 'w3'] that are not included in the specified --lora-target-modules\". "
        "Adapters of Mixtral and Phi name their experts so.",
    .fix = "Write gate_proj, up_proj and down_proj into target_modules, and name the tensors so.",
    .remedy = Remedy::for_engine,
    .source = "SGLang lora/utils.py, get_normalized_target_modules; PR 21466",
    .breaks = {.specimen = "mixtral_per_expert", .change = "serve it with SGLang"},
};

}  // namespace moelora
