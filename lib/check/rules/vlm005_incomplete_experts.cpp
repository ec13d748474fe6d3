#include <array>

#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

namespace {
constexpr std::array<std::string_view, 1> kImplies = {"MOD005"};
}  // namespace

extern const Rule vlm005_incomplete_experts;
const Rule vlm005_incomplete_experts = {
    .id = "VLM005",
    .name = "incomplete-experts",
    .cause = &vllm::cause::incomplete_experts,
    .engine = &engines::vllm,
    .needs_base = true,
    .what =
        "A layer's experts do not all have gate, up and down, or only one of the stacked "
        "parameters is there.",
    .why =
        "pack_moe asserts that every expert of a layer has all three projections, the stacked "
        "wrapper that both gate_up and down are there; vLLM's own comment calls the rest an edge "
        "case. The server says \"AssertionError\" and nothing else; where only a lora_A or a "
        "lora_B is missing, \"expected Tensor as element 3 in argument 0, but got NoneType\".",
    .fix =
        "lora-convert adapter {adapter} OUT --to peft-linear --base BASE fills absent factors "
        "with zeros where the layout allows it; else add pairs whose lora_B is zero.",
    .source =
        "vLLM lora/lora_weights.py, pack_moe; oracles pe_missing_expert, peft_params_down_only",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "remove one expert's down_proj",
               .engine = "vllm",
               .apply =
                   [](Specimen& specimen) { remove_tensors(specimen, "experts.3.down_proj"); }},
    .implies = kImplies,
};

}  // namespace moelora
