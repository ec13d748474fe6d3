#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm012_embedding_target = {
    .id = "VLM012",
    .name = "embedding-target",
    .cause = &vllm::cause::embedding_target,
    .engine = &engines::vllm,
    .what = "LoRA on embed_tokens or lm_head of a class that takes none there.",
    .why =
        "Only classes with embedding_modules take it (Qwen3-MoE, Mixtral, PhiMoE, Nemotron-H, "
        "Jamba, LFM2-MoE, Qwen3.5 since 0.29 ...): \"expected target modules in {...} but received "
        "['lm_head', "
        "'lm_head', ...]\".",
    .fix = "Remove these pairs, or merge them into the base model's embeddings before serving.",
    .remedy = Remedy::for_engine,
    .source = "vLLM lora/utils.py, get_supported_lora_modules; oracle gpt_oss/embed_lm_head",
    .breaks = {.specimen = "gpt_oss_attention",
               .change = "add a pair on lm_head",
               .apply = [](Specimen& specimen) { add_pair(specimen, "lm_head", 64, 160); }},
    .implies = {"CFG005"},
};

}  // namespace moelora
