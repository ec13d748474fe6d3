#include <string>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/server/model_class.h"

namespace moelora {
namespace {

// Neither another version helps where the class never takes LoRA, nor a merged model where vLLM has
// the class no more.
void check(RuleContext& context) {
  const auto model = vllm::find_model_class(*context.spec(), context.run().choice.version);
  context.explain_plan([&](Finding& finding, const PlanEvent&) {
    if (model && model->start_error.find("was supported in vLLM until") != std::string::npos)
      finding.fix = "Use a vLLM that still has the class, or another server.";
    else if (model && !model->takes_lora)
      finding.fix = "Merge the adapter into the base model and serve that.";
  });
}

}  // namespace

const Rule vlm028_class_without_lora = {
    .id = "VLM028",
    .name = "class-without-lora",
    .cause = &vllm::cause::class_without_lora,
    .engine = &engines::vllm,
    .whole_deployment = true,
    .what = "A model class that cannot start with LoRA in this version.",
    .why =
        "GraniteMoe and Llama 4 text in 2026-05: \"To support LoRA for MoE model, "
        "'get_expert_mapping' must be implemented\"; ExaoneMoe: \"'LoRAConfig' object has no "
        "attribute 'lora_extra_vocab_size'\"; Dots1 since 0.24: \"was supported in vLLM until "
        "v0.23.0\"; Kimi K2.5: \"does not support LoRA yet.\"; a stacked class without "
        "architectures in "
        "config.json: \"model_config.architectures must be defined for MoE LoRA.\"; LoRA on "
        "lm_head: \"When using LoRA, vocab size must be <= 258048\".",
    .fix = "Use another version of vLLM, or merge the adapter into the base model.",
    .source = "vLLM issues 53470, 46247, 31923, 43840; oracles/vllm.md section 4, 13",
    .breaks = {.specimen = "gpt_oss_stacked_params",
               .change = "remove architectures from the base's config.json",
               .base_config = {{"architectures", ""}}},
    .check = check,
};

}  // namespace moelora
