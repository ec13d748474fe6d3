#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl022_split_gdn = {
    .id = "SGL022",
    .name = "split-gdn",
    .cause = &sglang::cause::split_gdn,
    .engine = &engines::sglang,
    .what =
        "Linear attention is adapted under the names of the hub: in_proj_qkv, in_proj_z, "
        "in_proj_a, in_proj_b.",
    .why =
        "SGLang stacks in_proj_q, in_proj_k, in_proj_v and in_proj_z, or takes a merged "
        "in_proj_qkvz; the hub's own split ends the start: \"get_hidden_dim not implemented for "
        "in_proj_qkv\". in_proj_a and in_proj_b it cannot adapt at all.",
    .fix =
        "Train without linear attention, or merge the adapter into the base model and serve "
        "that.",
    .remedy = Remedy::for_engine,
    .source = "SGLang issue 30168, PRs 30189 and 31522, open",
    .breaks = {.change = "adapt an in_proj_qkv",
               .apply =
                   [](Specimen& specimen) {
                     add_pair(specimen, "model.layers.0.linear_attn.in_proj_qkv", 64, 96);
                     set_targets(specimen, {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj",
                                            "up_proj", "down_proj", "in_proj_qkv"});
                   }},
    .implies = {"MOD001"},
};

}  // namespace moelora
