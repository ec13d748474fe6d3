#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm025_tp_hides_shape = {
    .id = "VLM025",
    .name = "tp-hides-shape",
    .cause = &vllm::cause::tp_hides_shape,
    .engine = &engines::vllm,
    .what = "A shape that tensor parallel size 1 would refuse and slicing hides.",
    .why =
        "Python slices clip: at --tp 2 and above what lies beyond a rank's part is dropped, where "
        "tp 1 raises \"The size of tensor a (24) must match the size of tensor b (64) at "
        "non-singleton dimension 2\". So an oversized down_proj, a k_proj as large as q_proj, and "
        "stacked files that are transposed (PEFT 0.18) or have down_proj first load without a "
        "word where 2I <= H.",
    .fix =
        "Serve it with the base model that it was trained on; with --tp 1 the server says what "
        "does not fit.",
    .remedy = Remedy::for_engine,
    .source = "oracles/vllm.md section 4, 1; vLLM PR 52198",
    .breaks = {.change = "give q_proj's lora_B 80 rows and serve on two ranks",
               .options = {"tp-size=2"},
               .apply =
                   [](Specimen& specimen) {
                     replace_tensors(specimen, "layers.0.self_attn.q_proj.lora_B", {80, 4});
                   }},
    .implies = {"MOD002"},
};

}  // namespace moelora
