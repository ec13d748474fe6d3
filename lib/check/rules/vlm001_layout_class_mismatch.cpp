#include "lib/check/define_rule.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {

const Rule vlm001_layout_class_mismatch = {
    .id = "VLM001",
    .name = "layout-class-mismatch",
    .cause = &vllm::cause::layout_class_mismatch,
    .engine = &engines::vllm,
    .what =
        "The experts' layout is not the one this model class takes: stacked on a per-expert "
        "class, or the reverse.",
    .why =
        "A class wraps its experts either per expert (most) or stacked (gpt-oss, Qwen3-VL, "
        "Qwen3.5 with vision). Stacked tensors on the first kind end in a bare AssertionError "
        "(isinstance(lora_a, list)) when the adapter is copied, since 0.32 in \"contains fused 3D "
        "MoE weights for '...', but the model uses a 2D MoE LoRA wrapper\"; numbered ones on the "
        "second fail "
        "at the name gate: \"expected target modules in {... 'experts' ...} but received [...]\". "
        "--enable-mixed-moe-lora-format lets stacked classes take both, if each adapter says what "
        "it is (is_3d_lora_weight).",
    .fix =
        "Export the experts in the layout that the class takes, or start the server with "
        "--enable-mixed-moe-lora-format.",
    .remedy = Remedy::for_engine,
    .source = "vLLM issues 38520, 40005, 47088; vllm-omni 5169",
    .breaks = {.specimen = "qwen3_moe_stacked_params",
               .change =
                   "ask for it on Qwen3-MoE, whose class takes a pair an expert and projection"},
};

}  // namespace moelora
