#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl042_replicated_q = {
    .id = "SGL042",
    .name = "replicated-q",
    .cause = &sglang::cause::replicated_q,
    .engine = &engines::sglang,
    .since = "0.5.23",
    .whole_deployment = true,
    .what = "LoRA on queries, and --dcp-replicate-q-proj.",
    .why =
        "Each rank then decodes with the heads of all, from weights that it gathered once without "
        "any adapter: \"Replicated-Q decode is incompatible with LoRA targets ['qkv_proj']\" when "
        "the server starts.",
    .fix = "Start the server with --no-dcp-replicate-q-proj.",
    .source = "SGLang lora/lora_manager.py, _validate_replicated_q_targets",
    .breaks = {.change = "serve it with --dcp-replicate-q-proj",
               .options = {"dcp-replicate-q-proj=on"}},
};

}  // namespace moelora
