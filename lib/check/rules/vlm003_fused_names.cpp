#include <array>

#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

namespace {
constexpr std::array<std::string_view, 2> kImplies = {"CFG005", "MOD001"};
}  // namespace

extern const Rule vlm003_fused_names;
const Rule vlm003_fused_names = {
    .id = "VLM003",
    .name = "fused-names",
    .cause = &vllm::cause::fused_names,
    .engine = &engines::vllm,
    .needs_base = true,
    .what = "A fused name (qkv_proj, gate_up_proj) where the class knows its parts only.",
    .why =
        "vLLM packs q/k/v and gate/up itself and takes their parts' names alone: \"While loading "
        "..., expected target modules in {...} but received ['...self_attn.qkv_proj', ...]. "
        "Please verify that the loaded LoRA module is correct\".",
    .fix =
        "Train or export with the parts' names (q_proj, k_proj, v_proj, gate_proj, up_proj); for "
        "experts lora-convert adapter {adapter} OUT --to peft-linear --base BASE splits them.",
    .source = "vLLM lora_model.py, check_unexpected_modules",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "name q_proj of one layer qkv_proj",
               .engine = "vllm",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, "layers.0.self_attn.q_proj.lora_A",
                                    "layers.0.self_attn.qkv_proj.lora_A");
                     rename_tensors(specimen, "layers.0.self_attn.q_proj.lora_B",
                                    "layers.0.self_attn.qkv_proj.lora_B");
                   }},
    .implies = kImplies,
};

}  // namespace moelora
