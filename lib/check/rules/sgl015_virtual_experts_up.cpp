#include "lib/check/engine_findings.h"
#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

extern const Rule sgl015_virtual_experts_up;
const Rule sgl015_virtual_experts_up = {
    .id = "SGL015",
    .name = "virtual-experts-up",
    .cause = &sglang::cause::virtual_experts_up,
    .engine = &engines::sglang,
    .needs_base = true,
    .needs_values = true,
    .what = "gate_proj and up_proj have different lora_A, and the server uses virtual experts.",
    .why =
        "With --lora-use-virtual-experts the delta of up is computed from gate's lora_A; up's own "
        "is never read. Nothing says so: relative errors of 0.6 to 2.1 against the trained layer, "
        "measured.",
    .fix =
        "lora-convert adapter {adapter} OUT --to stacked-fused --base BASE gives both one lora_A "
        "of twice the rank, with the same delta; or start the server without "
        "--lora-use-virtual-experts.",
    .source = "SGLang PRs 27274, 32241, 25496, open; kernels/ops/moe/virtual_experts.py",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "serve it with virtual experts",
               .engine = "sglang",
               .apply =
                   [](Specimen& specimen) { set_option(specimen, "lora-use-virtual-experts=on"); }},
    .check = report_differing_a,
};

}  // namespace moelora
