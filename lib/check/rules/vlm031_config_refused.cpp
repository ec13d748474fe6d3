#include "lib/adapter/names/config_kinds.h"
#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  if (context.plan() == nullptr) return;
  for (const PlanEvent& event : context.plan()->events) {
    if (event.cause != context.rule().cause) continue;
    Finding& finding = context.report_config("", event.detail);
    finding.server_text = refusal_text(*event.refusal);
    if (is_mlx_config(context.subject().config))
      finding.fix = context.subject().config_error->hint();
    if (context.subject().has_config) continue;
    finding.file.clear();
    if (context.subject().instead.empty())
      finding.fix = "Put the trainer's adapter_config.json beside the weights.";
  }
}

}  // namespace

const Rule vlm031_config_refused = {
    .id = "VLM031",
    .name = "config-refused",
    .cause = &vllm::cause::config_refused,
    .engine = &engines::vllm,
    .what =
        "adapter_config.json lacks what vLLM must have, or holds it in a form it cannot compute "
        "with.",
    .why =
        "r, lora_alpha and target_modules must be there (null counts): \"Missing required "
        "configuration fields: {'target_modules'}\". r = 0 is \"division by zero\", since "
        "2026-07-19 \"LoRA rank `r` must be a positive integer, got 0.\"; before that a negative "
        "r was served with the delta's sign flipped. Since 0.32 a rank of rank_pattern is looked "
        "at like r. No file at all: LoRAAdapterNotFoundError.",
    .fix =
        "Write r, lora_alpha and target_modules into adapter_config.json as the trainer used them.",
    .remedy = Remedy::for_engine,
    .source = "vLLM lora/peft_helper.py, PR 48437",
    .breaks = {.change = "remove target_modules", .config = {{"target_modules", ""}}},
    .implies = {"CFG001"},
    .check = check,
};

}  // namespace moelora
