#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl015_virtual_experts_up = {
    .id = "SGL015",
    .name = "virtual-experts-up",
    .cause = &sglang::cause::virtual_experts_up,
    .engine = &engines::sglang,
    .until = "0.5.23",
    .needs_values = true,
    .what = "gate_proj and up_proj have different lora_A, and the server uses virtual experts.",
    .why =
        "Before 0.5.23, with --lora-use-virtual-experts, the delta of up is computed from gate's "
        "lora_A; up's own is never read. Nothing says so: relative errors of 0.6 to 2.1 against "
        "the trained layer, measured.",
    .fix = "Start the server without --lora-use-virtual-experts, or use SGLang 0.5.23 or newer.",
    .remedy = Remedy::for_engine,
    .source =
        "SGLang kernels/ops/moe/virtual_experts.py; fixed in 0.5.23, lora/lora_moe_runners.py",
    .breaks = {.change = "serve it with virtual experts",
               .engine = "sglang@0.5.22",
               .options = {"lora-use-virtual-experts=on"}},
    .check = report_differing_a,
};

}  // namespace moelora
