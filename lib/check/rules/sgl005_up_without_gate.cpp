#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl005_up_without_gate = {
    .id = "SGL005",
    .name = "up-without-gate",
    .cause = &sglang::cause::up_without_gate,
    .engine = &engines::sglang,
    .what = "up_proj is adapted and gate_proj is not.",
    .why =
        "gate_proj starts the stacking of gate and up; alone up_proj keeps its name, which no "
        "buffer has: the first request ends the server with \"Cannot find target module name for "
        "...up_proj.lora_A.weight in {...}\". gate_proj alone is served, with an up of zeros.",
    .fix = "Add gate_proj with an all-zero lora_B of the same rank; the delta stays the same.",
    .source = "SGLang lora/lora.py, normalize_gate_up_proj; lora/mem_pool.py",
    .breaks = {.change = "remove gate_proj",
               .apply = [](Specimen& specimen) { remove_module(specimen, "gate_proj"); }},
};

}  // namespace moelora
