#include "lib/check/served.h"

#include <algorithm>
#include <unordered_set>

namespace moelora {
namespace {

bool serves(const AdapterPlan& plan, std::span<const std::string> names) {
  if (plan.first_refusal() != nullptr) return false;
  if (names.empty()) return plan.events.empty();
  std::unordered_set<std::string_view> used;
  for (const TensorFate& fate : plan.fates)
    if (fate.fate == Fate::used) used.insert(fate.tensor);
  return std::all_of(names.begin(), names.end(),
                     [&](const std::string& name) { return used.count(name) != 0; });
}

}  // namespace

std::vector<const EngineRun*> chosen(const RuleContext& context, std::string_view engine) {
  std::vector<const EngineRun*> out;
  for (const EngineRun& run : context.deployment().engines)
    if (run.choice.engine->id == engine) out.push_back(&run);
  return out;
}

void minded_by(Finding& finding, const RuleContext& context,
               std::span<const EngineRun* const> mind) {
  finding.severity = context.deployment().engines.empty() ? Severity::warning
                     : mind.empty()                       ? Severity::information
                                                          : Severity::error;
  if (!mind.empty()) finding.engine = mind.front()->choice.label();
}

void minded_by(Finding& finding, const RuleContext& context,
               std::initializer_list<std::string_view> engines) {
  std::vector<const EngineRun*> mind;
  for (std::string_view engine : engines)
    for (const EngineRun* run : chosen(context, engine)) mind.push_back(run);
  minded_by(finding, context, mind);
}

void unless_served(Finding& finding, const RuleContext& context) {
  const auto& engines = context.deployment().engines;
  const bool served =
      !engines.empty() && std::all_of(engines.begin(), engines.end(), [&](const EngineRun& run) {
        return run.plan && *finding.adapter < run.plan->adapters.size() &&
               serves(run.plan->adapters[*finding.adapter], finding.names);
      });
  if (served) finding.severity = std::min(finding.severity, Severity::warning);
}

}  // namespace moelora
