#include <array>

#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

namespace {
constexpr std::array<std::string_view, 1> kImplies = {"MOD002"};
}  // namespace

extern const Rule vlm025_tp_hides_shape;
const Rule vlm025_tp_hides_shape = {
    .id = "VLM025",
    .name = "tp-hides-shape",
    .cause = &vllm::cause::tp_hides_shape,
    .engine = &engines::vllm,
    .needs_base = true,
    .what = "A shape that tensor parallel size 1 would refuse and slicing hides.",
    .why =
        "Python slices clip: at --tp 2 and above what lies beyond a rank's part is dropped, where "
        "tp 1 raises \"The size of tensor a (24) must match the size of tensor b (64) at "
        "non-singleton dimension 2\". So an oversized down_proj, a k_proj as large as q_proj, and "
        "stacked files that are transposed (PEFT 0.18) or have down_proj first load without a "
        "word where 2I <= H.",
    .fix =
        "lora-convert adapter {adapter} OUT --to peft-params --roles natural repairs transposed "
        "stacked files; other shapes belong to another base model.",
    .source = "oracles/vllm.md section 4, 1; vLLM PR 52198",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "give q_proj's lora_B 80 rows and serve on two ranks",
               .engine = "vllm",
               .apply =
                   [](Specimen& specimen) {
                     set_tensor(specimen,
                                "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
                                {80, 4});
                     set_option(specimen, "tp-size=2");
                   }},
    .implies = kImplies,
};

}  // namespace moelora
