#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm032_shape_refused = {
    .id = "VLM032",
    .name = "shape-refused",
    .cause = &vllm::cause::shape_refused,
    .engine = &engines::vllm,
    .what = "A factor larger than vLLM's buffer, flat, or not divisible by the base's experts.",
    .why =
        "\"The size of tensor a (64) must match the size of tensor b (80) at non-singleton "
        "dimension 0\" at the copy; \"tuple index out of range\" or \"too many indices for tensor "
        "of dimension 1\" for flattened tensors of an un-gathered ZeRO-3 or FSDP save; \"shape "
        "'[4, -1, 64]' is invalid for input of size 640\" for stacked rows that the experts do not "
        "divide. A failure at the copy leaves the adapter registered and its slot half written.",
    .fix =
        "Serve the adapter with the base model it was trained on; flat tensors must be gathered "
        "when saving (stage3_gather_16bit_weights_on_model_save).",
    .source = "vLLM issues 28640, 52194; oracles attn_big_out, pe_one_dim, stacked_10_rows",
    .breaks = {.change = "give q_proj's lora_B 80 rows",
               .apply =
                   [](Specimen& specimen) {
                     replace_tensors(specimen, "layers.0.self_attn.q_proj.lora_B", {80, 4});
                   }},
    .implies = {"MOD002"},
};

}  // namespace moelora
