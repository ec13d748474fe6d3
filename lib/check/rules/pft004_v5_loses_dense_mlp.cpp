#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft004_v5_loses_dense_mlp = {
    .id = "PFT004",
    .name = "v5-loses-dense-mlp",
    .cause = &peft::cause::targets_taken,
    .engine = &engines::peft,
    .what =
        "Shared experts or dense layers named as gate_proj, up_proj and down_proj (w1, w3, w2) "
        "beside transformers 5, in the families that PEFT converts.",
    .why =
        "PEFT takes every target that is one of these names, or ends in one, for the routed "
        "experts' and drops it as a module: shared experts and dense layers are not wrapped, "
        "their tensors are unexpected keys, of which PeftModel says nothing.",
    .fix = "Load it with transformers 4, where modules stay modules.",
    .remedy = Remedy::for_engine,
    .source = "peft utils/transformers_weight_conversion.py",
    .breaks = {.specimen = "deepseek_v3_per_expert",
               .change = "nothing: PEFT is asked to load it on transformers 5"},
};

}  // namespace moelora
