#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {
namespace {

// Each finding is about a key of the config: "use_qalora is true".
void check(RuleContext& context) {
  context.explain_plan([&](Finding& finding, const PlanEvent& event) {
    if (event.detail.starts_with("init_lora_weights"))
      finding.fix = context.fill(
          "Convert it to a plain LoRA adapter with PEFT's "
          "path_initial_model_for_weight_conversion; or set init_lora_weights to true where the "
          "base that is served holds the changed weights.");
  });
}

}  // namespace

const Rule vlm035_peft_feature = {
    .id = "VLM035",
    .name = "peft-feature",
    .cause = &vllm::cause::peft_feature,
    .engine = &engines::vllm,
    .since = "0.32",
    .what =
        "A config that asks for what vLLM does not do: PiSSA, OLoRA, CorDA or LoftQ, aLoRA, "
        "layer_replication, BD-LoRA, QALoRA.",
    .why =
        "\"vLLM does not support init_lora_weights='pissa'. Inits such as PiSSA, OLoRA, CorDA and "
        "LoftQ modify the base model weights when PEFT loads the adapter. ...\"; \"vLLM does not "
        "support QALoRA.\" and the like. Earlier releases pass over these keys and serve the "
        "factors on the base as it is.",
    .fix = "Merge the adapter into the base model and serve that.",
    .source = "vLLM lora/peft_helper.py of 0.32.0",
    .breaks = {.change = "set init_lora_weights to pissa",
               .config = {{"init_lora_weights", R"("pissa")"}}},
    .implies = {"CFG004"},
    .check = check,
};

}  // namespace moelora
