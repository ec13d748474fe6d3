#include "lib/check/example_edits.h"
#include "lib/check/rule.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {
namespace {

void make_llama4(Specimen& specimen) {
  set_base_config(specimen, "model_type", R"("llama4_text")");
  set_base_config(specimen, "architectures", R"(["Llama4ForCausalLM"])");
  set_base_config(specimen, "intermediate_size", "24");
  set_base_config(specimen, "intermediate_size_mlp", "96");
  set_base_config(specimen, "interleave_moe_layer_step", "1");
  erase_base_config(specimen, "moe_intermediate_size");
  rename_tensors(specimen, ".mlp.", ".feed_forward.");
}

constexpr std::string_view kImplies[] = {"SGL023"};

}  // namespace

extern const Rule sgl025_weight_on_input;
const Rule sgl025_weight_on_input = {
    .id = "SGL025",
    .name = "weight-on-input",
    .cause = &sglang::cause::weight_on_input,
    .engine = &engines::sglang,
    .needs_base = true,
    .what = "The model weights the experts' input rather than their output (Llama 4).",
    .why =
        "SGLang leaves the delta of gate and up unweighted and weights that of down, where the "
        "base does the reverse: every expert delta is wrong, and nothing says so.",
    .fix = "Merge the adapter into the base model, or train attention only.",
    .source = "SGLang moe_runner/triton_utils/fused_moe.py, lora_moe_runners.py",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "a Llama 4 base",
               .engine = "sglang",
               .apply = make_llama4},
    .implies = kImplies,
};

}  // namespace moelora
