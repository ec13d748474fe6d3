#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl003_kv_without_q = {
    .id = "SGL003",
    .name = "kv-without-q",
    .cause = &sglang::cause::kv_without_q,
    .engine = &engines::sglang,
    .what = "k_proj or v_proj is adapted and q_proj is not.",
    .why =
        "Only a q_proj starts the stacking of q, k and v. Alone they keep their names, which no "
        "buffer has: the server starts, and the first request ends it with \"Cannot find target "
        "module name for ...k_proj.lora_A.weight in {'qkv_proj'}\".",
    .fix =
        "Add q_proj (and v_proj) with an all-zero lora_B of the same rank; the delta stays the "
        "same.",
    .remedy = Remedy::for_engine,
    .source = "SGLang lora/lora.py, normalize_qkv_proj; lora/mem_pool.py",
    .breaks = {.change = "remove q_proj",
               .apply = [](Specimen& specimen) { remove_module(specimen, "q_proj"); }},
};

}  // namespace moelora
