#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

extern const Rule sgl028_dora;
const Rule sgl028_dora = {
    .id = "SGL028",
    .name = "dora",
    .cause = &sglang::cause::dora,
    .config_key = "use_dora",
    .engine = &engines::sglang,
    .needs_base = true,
    .what = "use_dora is set.",
    .why =
        "\"Failed to load my-lora because LoRA serving currently doesn't support DoRA adapters\"; "
        "before 0.5.11 it is served as plain LoRA, without a word.",
    .fix = "Merge the adapter into the base model.",
    .source = "SGLang PR 22125",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "set use_dora",
               .engine = "sglang",
               .apply = [](Specimen& specimen) { set_config(specimen, "use_dora", "true"); }},
};

}  // namespace moelora
