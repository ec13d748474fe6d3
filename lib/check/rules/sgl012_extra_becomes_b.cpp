#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl012_extra_becomes_b = {
    .id = "SGL012",
    .name = "extra-becomes-b",
    .cause = &sglang::cause::extra_becomes_b,
    .engine = &engines::sglang,
    .what =
        "A layer has a tensor that is not a low-rank factor: a bias, a magnitude, a saved module.",
    .why =
        "SGLang calls every tensor without lora_A in its name the B of its module. One of a module "
        "that is not a target ends the server: \"Cannot find target module name for "
        "...input_layernorm.weight in {...}\"; one that takes the place of lora_B does not fit: "
        "\"LoRA buffer shape torch.Size([64, 4]) does not match weight shape torch.Size([64]).\".",
    .fix =
        "Merge the saved modules and biases into the base model and remove them here; a DoRA "
        "magnitude has no place in a plain LoRA adapter.",
    .remedy = Remedy::for_engine,
    .source = "SGLang lora/mem_pool.py, load_lora_weight_to_buffer",
    .breaks = {.change = "save a norm of layer 0",
               .apply =
                   [](Specimen& specimen) {
                     set_tensor(specimen, "base_model.model.model.layers.0.input_layernorm.weight",
                                {64});
                   }},
};

}  // namespace moelora
