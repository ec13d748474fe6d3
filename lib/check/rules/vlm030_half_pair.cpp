#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm030_half_pair = {
    .id = "VLM030",
    .name = "half-pair",
    .cause = &vllm::cause::half_pair,
    .engine = &engines::vllm,
    .what = "A lora_A without its lora_B, or the reverse, outside numbered experts.",
    .why =
        "optimize() multiplies lora_B: \"unsupported operand type(s) for *=: 'NoneType' and "
        "'float'\"; with a scale of 1 \"'NoneType' object has no attribute 'pin_memory'\". A "
        "lora_B without lora_A in a packed module (q, k, v, gate, up) is copied and adds nothing, "
        "without a word; elsewhere it is a bare AssertionError.",
    .fix = "The file is incomplete: save the adapter again.",
    .source = "vLLM lora/lora_weights.py, optimize; oracles attn_A_without_B, o_proj_B_without_A",
    .breaks = {.change = "remove the lora_B of one o_proj",
               .apply =
                   [](Specimen& specimen) {
                     remove_tensors(specimen, "layers.0.self_attn.o_proj.lora_B");
                   }},
    .implies = {"FMT006"},
};

}  // namespace moelora
