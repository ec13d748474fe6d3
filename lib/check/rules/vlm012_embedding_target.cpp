#include <array>

#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

namespace {
constexpr std::array<std::string_view, 1> kImplies = {"CFG005"};
}  // namespace

extern const Rule vlm012_embedding_target;
const Rule vlm012_embedding_target = {
    .id = "VLM012",
    .name = "embedding-target",
    .cause = &vllm::cause::embedding_target,
    .engine = &engines::vllm,
    .needs_base = true,
    .what = "LoRA on embed_tokens or lm_head of a class that takes none there.",
    .why =
        "Only classes with embedding_modules take it (Qwen3-MoE, Mixtral, PhiMoE, Nemotron-H, "
        "Jamba, LFM2-MoE ...): \"expected target modules in {...} but received ['lm_head', "
        "'lm_head', ...]\".",
    .fix = "Remove these pairs, or merge them into the base model's embeddings before serving.",
    .source = "vLLM lora/utils.py, get_supported_lora_modules; oracle gpt_oss/embed_lm_head",
    .breaks = {.specimen = "gpt_oss_attention",
               .change = "add a pair on lm_head",
               .engine = "vllm",
               .apply =
                   [](Specimen& specimen) {
                     set_tensor(specimen, "base_model.model.lm_head.lora_A.weight", {4, 64});
                     set_tensor(specimen, "base_model.model.lm_head.lora_B.weight", {160, 4});
                   }},
    .implies = kImplies,
};

}  // namespace moelora
