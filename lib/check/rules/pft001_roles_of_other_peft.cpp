#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft001_roles_of_other_peft = {
    .id = "PFT001",
    .name = "roles-of-other-peft",
    .cause = &peft::cause::other_roles,
    .engine = &engines::peft,
    .what = "The stacked pairs have lora_A on the other side than this release of PEFT.",
    .why =
        "PEFT read every parameter as [E, in, out] until 0.18, those marked as transposed the "
        "wrong way round in 0.19.0, and right since 0.19.1. It stops with a size mismatch, or, "
        "where the sizes are equal, computes nonsense without a word.",
    .fix = "Load it with the PEFT that wrote it.",
    .remedy = Remedy::for_engine,
    .source = "peft lora/layer.py, PR 3165; NeMo AutoModel issue 3592",
    .breaks = {.specimen = "qwen3_moe_stacked_params",
               .change = "nothing: PEFT 0.18 is asked to load what 0.19.1 and newer write",
               .engine = "peft@0.18",
               .options = {"transformers=5.5"}},
};

}  // namespace moelora
