#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {
namespace {

// Nothing is wrong, but the server must find out by itself.
void note_detection(RuleContext& context) {
  const Subject& subject = context.subject();
  if (subject.layout == nullptr || !subject.layout->shared_outer) return;
  if (context.plan() == nullptr || context.plan()->first_refusal() != nullptr) return;
  Finding& finding = context.report(
      "the experts share their outer factors: a server that has this adapter at its start detects "
      "it; one that starts empty or with others needs --experts-shared-outer-loras");
  finding.severity = Severity::information;
}

void check(RuleContext& context) {
  size_t explained = 0;
  context.explain_plan([&](Finding&, const PlanEvent&) { ++explained; });
  if (explained == 0) note_detection(context);
}

}  // namespace

const Rule sgl013_shared_outer_flag = {
    .id = "SGL013",
    .name = "shared-outer-flag",
    .cause = &sglang::cause::shared_outer_flag,
    .engine = &engines::sglang,
    .what =
        "Shared outer experts on a server that holds a factor for each expert, or the reverse; "
        "information where the server detects the form.",
    .why =
        "SGLang decides once, when it starts, by the adapters given to it or by "
        "--experts-shared-outer-loras. A shared-outer adapter in the other mode (a flag that says "
        "off, an empty start) reaches expert 0 only, without a word. The reverse ends the server "
        "at the first request: \"experts_shared_outer_loras is enabled but gate_up_proj_moe lora_A "
        "has expert_dim=128 (expected 1).\".",
    .fix = "Start the server with --experts-shared-outer-loras.",
    .source = "SGLang PR 21466, issue 28466; lora/lora_manager.py, _detect_shared_outer_loras",
    .breaks = {.specimen = "qwen3_moe_shared_outer",
               .change = "serve it with --experts-shared-outer-loras off",
               .options = {"experts-shared-outer-loras=off"}},
    .check = check,
};

}  // namespace moelora
