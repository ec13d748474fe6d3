#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl002_lone_q_proj = {
    .id = "SGL002",
    .name = "lone-q-proj",
    .cause = &sglang::cause::lone_q_proj,
    .engine = &engines::sglang,
    .what = "q_proj is adapted and v_proj is not.",
    .why =
        "SGLang stacks q, k and v when it reads an adapter and takes v for granted: \"Failed to "
        "load LoRA adapter my-lora: "
        "'base_model.model.model.layers.0.self_attn.v_proj.lora_A.weight'\", a bare KeyError. A "
        "k_proj may be missing in a whole layer, and is zero then.",
    .fix =
        "Add v_proj with an all-zero lora_B of the same rank (and k_proj, if the layer has one "
        "elsewhere); the delta stays the same.",
    .remedy = Remedy::for_engine,
    .source = "SGLang lora/lora.py, normalize_qkv_proj; issue 25913, PR 28199",
    .breaks = {.change = "remove k_proj and v_proj",
               .apply =
                   [](Specimen& specimen) {
                     remove_module(specimen, "k_proj");
                     remove_module(specimen, "v_proj");
                   }},
};

}  // namespace moelora
