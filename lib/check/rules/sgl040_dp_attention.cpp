#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl040_dp_attention = {
    .id = "SGL040",
    .name = "dp-attention",
    .cause = &sglang::cause::dp_attention,
    .engine = &engines::sglang,
    .whole_deployment = true,
    .what = "DP attention with an adapter that is not pinned, or with groups of several ranks.",
    .why =
        "Since 0.5.21 \"DP-attention LoRA requires pinned adapters\"; since 0.5.22 every rank is a "
        "group of its own: \"LoRA with DP attention requires --attn-dp-size equal to --tp-size\".",
    .fix =
        "Give --attn-dp-size the number of --tp-size, and adapters as --lora-paths "
        "'{\"lora_name\": NAME, \"lora_path\": FOLDER, \"pinned\": true}'.",
    .source = "SGLang lora/lora_manager.py, __init__ and validate_new_adapter",
    .breaks = {.change = "serve it on two ranks with DP attention",
               .options = {"tp-size=2", "attn-dp-size=2"}},
};

}  // namespace moelora
