#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm033_experts_named_twice = {
    .id = "VLM033",
    .name = "experts-named-twice",
    .cause = &vllm::cause::experts_named_twice,
    .engine = &engines::vllm,
    .since = "0.29",
    .what =
        "Experts of a class that vLLM serves by its Transformers backend (FlexOlmo, HunYuan, "
        "Mellum, Kolibri1).",
    .why =
        "The backend's map of experts names every Linear twice (gate_proj and w1, ...), and "
        "pack_moe asserts that all of them are there: any adapter with routed experts ends in a "
        "bare AssertionError. Attention alone is served.",
    .fix =
        "Use a release that has a class of its own for the model (FlexOlmo and HunYuan 0.28, "
        "Mellum 0.31), merge the adapter into the base model, or train without experts.",
    .source = "vLLM model_executor/models/transformers/moe.py:183 of 0.33.0, registry.py",
    .breaks = {.change = "serve the experts of a FlexOlmo",
               .base_config = {{"architectures", R"(["FlexOlmoForCausalLM"])"}}},
};

}  // namespace moelora
