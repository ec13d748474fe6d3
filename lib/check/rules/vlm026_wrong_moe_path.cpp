#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm026_wrong_moe_path = {
    .id = "VLM026",
    .name = "wrong-moe-path",
    .cause = &vllm::cause::wrong_moe_path,
    .engine = &engines::vllm,
    .what = "Expert tensors under a path that this class does not have.",
    .why =
        "Mixtral's experts are block_sparse_moe.experts in vLLM; PEFT on transformers 5 saves "
        "mlp.experts. The name gate looks at the tail from \"experts\" only, so they pass, match "
        "no module and are dropped: attention is adapted, the experts are not.",
    .fix =
        "Name the experts' tensors as this class does, or merge the adapter into the base model "
        "and serve that.",
    .remedy = Remedy::for_engine,
    .source = "oracles/vllm.md section 4, 3 (mixtral/peft_params)",
    .breaks = {.specimen = "mixtral_per_expert",
               .change = "write mlp for block_sparse_moe, as transformers 5 does",
               .apply =
                   [](Specimen& specimen) { rename_tensors(specimen, "block_sparse_moe", "mlp"); }},
};

}  // namespace moelora
