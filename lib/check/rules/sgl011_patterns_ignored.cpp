#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl011_patterns_ignored = {
    .id = "SGL011",
    .name = "patterns-ignored",
    .cause = &sglang::cause::patterns_ignored,
    .engine = &engines::sglang,
    .what = "rank_pattern or alpha_pattern changes the rank or the scale of a module.",
    .why =
        "SGLang reads neither. Another rank does not fit: \"LoRA buffer shape torch.Size([4, 64]) "
        "does not match weight shape torch.Size([2, 64]).\", or torch.cat fails where the module "
        "is stacked with others; another alpha is served with the scale of the rest, without a "
        "word.",
    .fix =
        "Give all modules one rank and one alpha: pad the smaller factors with zeros to a common r "
        "and multiply their lora_B by (alpha_m / r_m) / (lora_alpha / r).",
    .remedy = Remedy::for_engine,
    .source =
        "SGLang lora/lora_config.py; a later version keeps the patterns for an admission check",
    .breaks = {.change = "give o_proj another alpha",
               .config = {{"alpha_pattern", R"({"o_proj": 32})"}}},
};

}  // namespace moelora
