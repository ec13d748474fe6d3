#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm009_patterns_ignored = {
    .id = "VLM009",
    .name = "vllm-patterns-ignored",
    .cause = &vllm::cause::patterns_ignored,
    .engine = &engines::vllm,
    .until = "0.32",
    .what = "rank_pattern or alpha_pattern gives a module another scale than alpha / r.",
    .why =
        "vLLM reads r and lora_alpha only and multiplies every lora_B with one factor; the "
        "patterns are dropped without a word (0.32 applies them). OLMoE-1B-7B: held-out "
        "perplexity 10.06 in PEFT, 11.28 in vLLM, 13.09 without the adapter. PEFT's own page on "
        "vLLM advises exactly such a config.",
    .fix =
        "Use vLLM 0.32 or later; or multiply each lora_B by (alpha_m / r_m) / (alpha / r) and "
        "empty both patterns.",
    .remedy = Remedy::for_engine,
    .source = "vLLM issue 59799, PR 59801; lora/peft_helper.py of 0.32.0",
    .breaks = {.change = "give q_proj an alpha of its own",
               .engine = "vllm@0.31",
               .config = {{"alpha_pattern", R"({"q_proj": 32})"}}},
};

}  // namespace moelora
