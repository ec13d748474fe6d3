#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl028_dora = {
    .id = "SGL028",
    .name = "dora",
    .cause = &sglang::cause::dora,
    .config_key = "use_dora",
    .engine = &engines::sglang,
    .what = "use_dora is set.",
    .why =
        "\"Failed to load my-lora because LoRA serving currently doesn't support DoRA adapters\"; "
        "before 0.5.11 it is served as plain LoRA, without a word.",
    .fix = "Merge the adapter into the base model.",
    .source = "SGLang PR 22125",
    .breaks = {.change = "set use_dora", .config = {{"use_dora", "true"}}},
};

}  // namespace moelora
