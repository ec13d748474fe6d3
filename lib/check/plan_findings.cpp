#include "lib/check/plan_findings.h"

namespace moelora {
namespace {

Finding& report(RuleContext& context, std::string_view key, const PlanEvent& event) {
  Finding& finding = event.tensors.empty() && !key.empty()
                         ? context.report_config(key, event.detail)
                         : context.report(event.tensors, event.detail);
  if (event.refusal) finding.server_text = refusal_text(*event.refusal);
  return finding;
}

}  // namespace

void explain_plan_with(RuleContext& context,
                       const std::function<void(Finding&, const PlanEvent&)>& refine) {
  if (const AdapterPlan* plan = context.plan())
    for (const PlanEvent& event : plan->events)
      if (event.cause == context.rule().name) refine(report(context, "", event), event);
}

void explain_plan_at(RuleContext& context, std::string_view key) {
  if (const AdapterPlan* plan = context.plan())
    for (const PlanEvent& event : plan->events)
      if (event.cause == context.rule().name) report(context, key, event);
}

}  // namespace moelora
