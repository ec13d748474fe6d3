#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl015_virtual_experts_up = {
    .id = "SGL015",
    .name = "virtual-experts-up",
    .cause = &sglang::cause::virtual_experts_up,
    .engine = &engines::sglang,
    .needs_values = true,
    .what = "gate_proj and up_proj have different lora_A, and the server uses virtual experts.",
    .why =
        "With --lora-use-virtual-experts the delta of up is computed from gate's lora_A; up's own "
        "is never read. Nothing says so: relative errors of 0.6 to 2.1 against the trained layer, "
        "measured.",
    .fix = "Start the server without --lora-use-virtual-experts.",
    .mend = Mend::for_engine,
    .source = "SGLang PRs 27274, 32241, 25496, open; kernels/ops/moe/virtual_experts.py",
    .breaks = {.change = "serve it with virtual experts",
               .options = {"lora-use-virtual-experts=on"}},
    .check = report_differing_a,
};

}  // namespace moelora
