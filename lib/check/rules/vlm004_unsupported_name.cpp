#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm004_unsupported_name = {
    .id = "VLM004",
    .name = "unsupported-name",
    .cause = &vllm::cause::unsupported_name,
    .engine = &engines::vllm,
    .what = "A tensor's name that vLLM's parser or its name gate refuses.",
    .why =
        "Names must end in lora_A.weight, lora_B.weight, lora_embedding_A or lora_embedding_B, "
        "else \"... is unsupported LoRA weight\"; and their last component, or their tail from "
        "\"experts\", must be one the class has, else \"expected target modules in {...} but "
        "received [...]\". One such name stops the whole adapter.",
    .fix =
        "Name the tensors as the modules of the class; modules it does not have must be left out "
        "of training.",
    .remedy = Remedy::for_engine,
    .source = "vLLM lora/utils.py, parse_fine_tuned_lora_name; vLLM issues 9280, 41702",
    .breaks = {.change = "write the adapter's name into one key: lora_A.default.weight",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, "layers.0.self_attn.o_proj.lora_A.",
                                    "layers.0.self_attn.o_proj.lora_A.default.");
                   }},
    .implies = {"FMT015"},
};

}  // namespace moelora
