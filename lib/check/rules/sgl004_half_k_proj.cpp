#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl004_half_k_proj = {
    .id = "SGL004",
    .name = "half-k-proj",
    .cause = &sglang::cause::half_k_proj,
    .engine = &engines::sglang,
    .what = "A layer has one of k_proj's two factors.",
    .why =
        "Where any tensor of a layer is a k_proj, SGLang wants one beside every q_proj tensor, "
        "lora_A and lora_B: \"'...self_attn.k_proj.lora_B.weight'\", a bare KeyError, when it "
        "reads the adapter. The same when another tower has a k_proj under the same layer number.",
    .fix = "Save the adapter again with both factors; or remove the lone one.",
    .source = "SGLang lora/lora.py, normalize_qkv_proj",
    .breaks = {.change = "remove every lora_B of k_proj",
               .apply = [](Specimen& specimen) { remove_tensors(specimen, "k_proj.lora_B"); }},
    .implies = {"FMT006"},
};

}  // namespace moelora
