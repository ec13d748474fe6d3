#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl026_silent_truncation = {
    .id = "SGL026",
    .name = "silent-truncation",
    .cause = &sglang::cause::silent_truncation,
    .engine = &engines::sglang,
    .what = "A factor has more rows or columns than the model's layer.",
    .why =
        "SGLang cuts lora_B of q, k, v, gate and up to the layer's rows, and lora_A of o and down "
        "to its columns, even on one GPU. What exceeds them is dropped; rows of the parts behind "
        "(k and v after q, up after gate) come out shifted. Nothing says so.",
    .fix = "Serve the adapter with the model it was trained on.",
    .source = "SGLang lora/layers.py, slice_lora_b_weights",
    .breaks = {.change = "give v_proj 16 rows too many",
               .apply =
                   [](Specimen& specimen) {
                     replace_tensors(specimen, "v_proj.lora_B", {48, 4});
                   }},
    .implies = {"MOD002"},
};

}  // namespace moelora
