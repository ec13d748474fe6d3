#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl001_router_target = {
    .id = "SGL001",
    .name = "router-target",
    .cause = &sglang::cause::router_target,
    .engine = &engines::sglang,
    .what = "A factor or a target on the router.",
    .why =
        "SGLang has no buffer for a router: \"get_hidden_dim not implemented for gate\" (or "
        "router) when it starts, on classes with a gate of their own \"No corresponding LoRA layer "
        "supported for <class 'sglang.srt.models.deepseek_v2.MoEGate'>.\". Where target_modules is "
        "all-linear it starts, and the first request ends it with \"Cannot find target module name "
        "for ...mlp.gate.lora_A.weight in {...}\". PEFT's all-linear adapts the router of hub "
        "classes that have a Linear there.",
    .fix =
        "Train without the router; or remove its tensors and its name from target_modules, and "
        "check on held-out data what that costs.",
    .remedy = Remedy::for_engine,
    .source = "SGLang issue 8903, PR 27813; lora/lora_manager.py, lora/utils.py",
    .breaks = {.change = "target all-linear, and adapt a router",
               .config = {{"target_modules", R"("all-linear")"}},
               .apply =
                   [](Specimen& specimen) {
                     add_pair(specimen, "model.layers.0.mlp.gate", 64, 8);
                   }},
};

}  // namespace moelora
