#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm037_tp_divisibility = {
    .id = "VLM037",
    .name = "tp-does-not-divide",
    .cause = &vllm::cause::tp_divisibility,
    .engine = &engines::vllm,
    .whole_deployment = true,
    .what = "The model does not split over --tp ranks.",
    .why =
        "Attention heads, the width of an expert (unless experts are spread by "
        "--enable-expert-parallel), of dense and shared MLPs must divide, and of key and value "
        "heads one number must divide the other: \"Total number of attention heads (32) must be "
        "divisible by tensor parallel size (3).\" before the model is built, with or without an "
        "adapter.",
    .fix = "Use a tensor-parallel size that divides them all.",
    .source = "vLLM config/model.py, verify_with_parallel_config; fused_moe/layer.py",
    .breaks = {.change = "serve it over 3 ranks", .options = {"tp-size=3"}},
};

}  // namespace moelora
