#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft002_keys_peft_ignores = {
    .id = "PFT002",
    .name = "keys-peft-ignores",
    .cause = &peft::cause::unread_name,
    .engine = &engines::peft,
    .what =
        "Tensor names that this PEFT does not read: 3-D or shared-outer experts, another family's "
        "words, "
        "another prefix, no .weight, the adapter's name in them.",
    .why =
        "PEFT has no module of these names: it warns of missing keys, if at all, and the experts "
        "stay those of the base model.",
    .fix = "Load it with a server: PEFT has no such modules.",
    .remedy = Remedy::for_engine,
    .source = "peft save_and_load.py; Megatron-Bridge PR 6076",
    .breaks = {.specimen = "qwen3_moe_shared_outer",
               .change = "nothing: it is a layout of servers"},
};

}  // namespace moelora
