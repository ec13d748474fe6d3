#include <array>

#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

namespace {
constexpr std::array<std::string_view, 1> kImplies = {"MOD001"};
}  // namespace

extern const Rule vlm018_silent_no_op;
const Rule vlm018_silent_no_op = {
    .id = "VLM018",
    .name = "silent-no-op",
    .cause = &vllm::cause::silent_no_op,
    .engine = &engines::vllm,
    .needs_base = true,
    .what = "Tensors whose names pass the gate and that no module of the model takes.",
    .why =
        "After the name gate nothing checks that a module was used: names of another wrapper "
        "(model.language_model., model.layers without it), of layers that are not there or of "
        "dense layers are loaded and dropped. The server answers as the base model does; requests "
        "to warn were closed unmerged (34803, 39278, 34964).",
    .fix =
        "Rename the tensors to the modules of this class, or train on the model that is served; a "
        "module in the file twice needs one of the two removed.",
    .source = "vLLM issues 34186, 39278, 55193",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "move q_proj of one layer to a path that is not there",
               .engine = "vllm",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, "layers.1.self_attn.q_proj.lora_A",
                                    "layers.1.mlp.q_proj.lora_A");
                     rename_tensors(specimen, "layers.1.self_attn.q_proj.lora_B",
                                    "layers.1.mlp.q_proj.lora_B");
                   }},
    .implies = kImplies,
};

}  // namespace moelora
