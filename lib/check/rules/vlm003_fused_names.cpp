#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm003_fused_names = {
    .id = "VLM003",
    .name = "fused-names",
    .cause = &vllm::cause::fused_names,
    .engine = &engines::vllm,
    .what = "A fused name (qkv_proj, gate_up_proj) where the class knows its parts only.",
    .why =
        "vLLM packs q/k/v and gate/up itself and takes their parts' names alone: \"While loading "
        "..., expected target modules in {...} but received ['...self_attn.qkv_proj', ...]. "
        "Please verify that the loaded LoRA module is correct\".",
    .fix = "Train or export with the parts' names: q_proj, k_proj, v_proj, gate_proj, up_proj.",
    .remedy = Remedy::for_engine,
    .source = "vLLM lora_model.py, check_unexpected_modules",
    .breaks = {.change = "name q_proj of one layer qkv_proj",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, "layers.0.self_attn.q_proj",
                                    "layers.0.self_attn.qkv_proj");
                   }},
    .implies = {"CFG005", "MOD001"},
};

}  // namespace moelora
