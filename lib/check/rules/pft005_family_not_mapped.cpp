#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft005_family_not_mapped = {
    .id = "PFT005",
    .name = "family-not-mapped",
    .cause = &peft::cause::family_not_mapped,
    .engine = &engines::peft,
    .what =
        "A per-expert adapter of a family whose experts are one parameter, which PEFT does not "
        "convert.",
    .why =
        "PEFT 0.19 and newer converts per-expert adapters for families like qwen3_moe and "
        "mixtral, older ones for none. Of others (qwen2_moe, phimoe, lfm2_moe, jamba, qwen3_5_moe, "
        "nemotron_h ...) it leaves the config as it is: nothing receives the tensors.",
    .fix = "Load it with transformers 4, where the experts are modules.",
    .remedy = Remedy::for_engine,
    .source = "peft utils/transformers_weight_conversion.py; transformers conversion_mapping.py",
    .breaks = {.specimen = "nemotron_h_per_expert",
               .change = "nothing: PEFT is asked to load it on transformers 5"},
};

}  // namespace moelora
