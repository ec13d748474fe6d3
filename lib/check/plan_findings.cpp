#include "lib/check/plan_findings.h"

#include <fmt/format.h>

#include "lib/adapter/summary.h"

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

void report_slot_memory(RuleContext& context) {
  if (!context.run().plan || !context.options().gpu_memory) return;
  const MemoryPlan& memory = context.run().plan->memory;
  const uint64_t limit = *context.options().gpu_memory;
  if (memory.total_bytes() <= limit) return;
  context.report(fmt::format("{} slots of {} each are {} on every GPU, which has {}", memory.slots,
                             size_text(memory.slot_bytes()), size_text(memory.total_bytes()),
                             size_text(limit)));
}

}  // namespace moelora
