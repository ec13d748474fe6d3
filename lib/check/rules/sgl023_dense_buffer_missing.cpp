#include "lib/check/define_rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {

const Rule sgl023_dense_buffer_missing = {
    .id = "SGL023",
    .name = "dense-buffer-missing",
    .cause = &sglang::cause::dense_buffer_missing,
    .engine = &engines::sglang,
    .what =
        "gate/up or down is a target of a model with dense and MoE layers and no shared experts.",
    .why =
        "SGLang allocates dense gate_up_proj and down_proj buffers for a MoE model only where it "
        "has shared experts, and wraps its dense layers all the same: KeyError 'gate_up_proj' when "
        "it starts. Adapters of attention alone are served.",
    .fix = "Serve attention only, or merge the adapter into the base model: no option helps.",
    .source = "SGLang PR 27381, closed unmerged; lora/mem_pool.py, init_buffers",
    .breaks = {.specimen = "deepseek_v3_per_expert",
               .change = "a base without shared experts",
               .base_config = {{"n_shared_experts", "null"}},
               .apply = [](Specimen& specimen) { remove_tensors(specimen, "shared_experts"); }},
};

}  // namespace moelora
