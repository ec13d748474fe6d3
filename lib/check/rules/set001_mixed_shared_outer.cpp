#include "lib/adapter/layout.h"
#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {
namespace {

// What gives the experts of every shared-outer adapter factors of their own.
std::string commands(const RuleContext& context) {
  std::string out;
  for (const Subject& adapter : context.deployment().adapters) {
    if (adapter.layout != &layouts::shared_outer) continue;
    Repair repair = repair_of(context.deployment(), adapter);
    repair.engine = context.run().choice.label();
    repair.to = layouts::stacked.id;
    out += (out.empty() ? "" : "; ") + repair.command();
  }
  return out.empty() ? out : out + "; or serve the two kinds by two servers";
}

void check(RuleContext& context) {
  const std::string fix = commands(context);
  context.explain_plan([&](Finding& finding, const PlanEvent&) {
    if (!fix.empty()) finding.fix = fix;
  });
}

}  // namespace

const Rule set001_mixed_shared_outer = {
    .id = "SET001",
    .name = "mixed-shared-outer",
    .cause = &sglang::cause::mixed_shared_outer,
    .engine = &engines::sglang,
    .what = "Shared-outer and per-expert adapters are given to one server.",
    .why =
        "SGLang holds the outer factors of experts once for all adapters, or once for each expert: "
        "\"Mixed shared-outer LoRA formats detected across loaded adapters (conflict in adapter "
        "'...'). All MoE adapters must either all use shared outer experts (expert_dim=1) or all "
        "use per-expert weights.\". Before 0.5.16 numbered experts are not counted, and fail at "
        "their first request.",
    .fix = "Serve the shared-outer adapters and the others by two servers.",
    .source = "SGLang PRs 21466, 21647 and 31681; lora/lora_manager.py",
    .breaks = {.specimen = "qwen3_moe_shared_outer",
               .change = "serve a per-expert adapter beside it",
               .apply =
                   [](Specimen& specimen) {
                     specimen.adapters.push_back(make_specimen("qwen3_moe_per_expert").adapter());
                   }},
    .check = check,
};

}  // namespace moelora
