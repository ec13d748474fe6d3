#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {
namespace {

constexpr std::string_view kImplies[] = {"CFG005"};

}  // namespace

extern const Rule sgl029_undeclared_embeddings;
const Rule sgl029_undeclared_embeddings = {
    .id = "SGL029",
    .name = "undeclared-embeddings",
    .cause = &sglang::cause::undeclared_embeddings,
    .severity = Severity::warning,
    .engine = &engines::sglang,
    .needs_base = true,
    .what = "embed_tokens or lm_head is adapted and not named in target_modules.",
    .why =
        "SGLang drops the factors of embed_tokens and lm_head where target_modules does not name "
        "them; only its debug log says so.",
    .fix = "Write embed_tokens and lm_head into target_modules of adapter_config.json.",
    .source = "SGLang lora/lora.py, _process_weight",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "adapt lm_head and do not name it",
               .engine = "sglang",
               .apply = [](Specimen& specimen) { add_pair(specimen, "lm_head", 64, 160); }},
    .implies = kImplies,
};

}  // namespace moelora
