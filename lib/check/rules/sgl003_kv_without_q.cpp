#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

extern const Rule sgl003_kv_without_q;
const Rule sgl003_kv_without_q = {
    .id = "SGL003",
    .name = "kv-without-q",
    .cause = &sglang::cause::kv_without_q,
    .engine = &engines::sglang,
    .needs_base = true,
    .what = "k_proj or v_proj is adapted and q_proj is not.",
    .why =
        "Only a q_proj starts the stacking of q, k and v. Alone they keep their names, which no "
        "buffer has: the server starts, and the first request ends it with \"Cannot find target "
        "module name for ...k_proj.lora_A.weight in {'qkv_proj'}\".",
    .fix =
        "Add q_proj (and v_proj) with an all-zero lora_B of the same rank; the delta stays the "
        "same.",
    .source = "SGLang lora/lora.py, normalize_qkv_proj; lora/mem_pool.py",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "remove q_proj",
               .engine = "sglang",
               .apply = [](Specimen& specimen) { remove_module(specimen, "q_proj"); }},
};

}  // namespace moelora
