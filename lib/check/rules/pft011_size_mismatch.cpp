#include "lib/check/define_rule.h"
#include "lib/engine/peft/causes.h"

namespace moelora {

const Rule pft011_size_mismatch = {
    .id = "PFT011",
    .name = "size-mismatch",
    .cause = &peft::cause::size_mismatch,
    .engine = &engines::peft,
    .what = "A tensor of another size than the one that PEFT makes.",
    .why =
        "load_state_dict stops: \"size mismatch for ...\": the rank is not the config's, a saved "
        "embedding has more rows than the base's, or nested parameters stand the other way round.",
    .fix =
        "Make r and rank_pattern agree with the tensors; resize the base's embeddings before "
        "loading saved ones.",
    .source = "oracles/peft.md",
    .breaks = {.specimen = "gpt_oss_attention",
               .change = "save lm_head with more rows",
               .engine = "peft",
               .config = {{"modules_to_save", R"(["lm_head"])"}},
               .apply =
                   [](Specimen& specimen) {
                     set_tensor(specimen, "base_model.model.lm_head.weight", {1000, 64});
                   }},
    .implies = {"MOD002"},
};

}  // namespace moelora
