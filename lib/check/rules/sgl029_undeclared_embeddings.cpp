#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl029_undeclared_embeddings = {
    .id = "SGL029",
    .name = "undeclared-embeddings",
    .cause = &sglang::cause::undeclared_embeddings,
    .severity = Severity::warning,
    .engine = &engines::sglang,
    .what = "embed_tokens or lm_head is adapted and not named in target_modules.",
    .why =
        "SGLang drops the factors of embed_tokens and lm_head where target_modules does not name "
        "them; only its debug log says so.",
    .fix = "Write embed_tokens and lm_head into target_modules of adapter_config.json.",
    .remedy = Remedy::for_engine,
    .source = "SGLang lora/lora.py, _process_weight",
    .breaks = {.change = "adapt lm_head and do not name it",
               .apply = [](Specimen& specimen) { add_pair(specimen, "lm_head", 64, 160); }},
    .implies = {"CFG005"},
};

}  // namespace moelora
