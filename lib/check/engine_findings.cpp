#include "lib/check/engine_findings.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <unordered_set>

#include "lib/adapter/adapter.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

// up's name of gate's: gate_proj and up_proj, or w1 and w3. "" for what is not gate's.
std::string up_of(const std::string& gate) {
  constexpr std::array<std::pair<std::string_view, std::string_view>, 2> kNames = {
      {{".gate_proj.", ".up_proj."}, {".w1.", ".w3."}}};
  for (const auto& [from, to] : kNames)
    if (const size_t at = gate.find(from); at != std::string::npos)
      return std::string(gate).replace(at, from.size(), to);
  return "";
}

const Tensor* find(const TensorMap& tensors, const std::string& name) {
  const auto at = tensors.find(name);
  return at == tensors.end() ? nullptr : &at->second;
}

std::vector<std::string> differing(const TensorMap& tensors, const PlanEvent& event) {
  std::vector<std::string> out;
  for (const std::string& gate : event.tensors) {
    const std::string up = up_of(gate);
    const Tensor *a = find(tensors, gate), *b = up.empty() ? nullptr : find(tensors, up);
    if (a != nullptr && b != nullptr && !identical(*a, *b)) out.insert(out.end(), {gate, up});
  }
  return out;
}

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

bool all_chosen(const RuleContext& context, const std::function<bool(const EngineRun&)>& is_so) {
  const auto& engines = context.deployment().engines;
  return !engines.empty() && std::all_of(engines.begin(), engines.end(), is_so);
}

std::vector<const EngineRun*> chosen(const RuleContext& context, const Engine& engine) {
  std::vector<const EngineRun*> out;
  for (const EngineRun& run : context.deployment().engines)
    if (run.choice.engine == &engine) out.push_back(&run);
  return out;
}

void set_severity_by_engine(Finding& finding, const RuleContext& context,
                            std::span<const EngineRun* const> refusing) {
  finding.severity = context.deployment().engines.empty() ? Severity::warning
                     : refusing.empty()                   ? Severity::information
                                                          : Severity::error;
  if (!refusing.empty()) finding.engine = refusing.front()->choice.label();
}

void set_severity_by_engine(Finding& finding, const RuleContext& context,
                            std::initializer_list<const Engine*> engines) {
  std::vector<const EngineRun*> refusing;
  for (const Engine* engine : engines)
    for (const EngineRun* run : chosen(context, *engine)) refusing.push_back(run);
  set_severity_by_engine(finding, context, refusing);
}

void downgrade_if_served(Finding& finding, const RuleContext& context) {
  const bool served = all_chosen(context, [&](const EngineRun& run) {
    const AdapterPlan* plan = run.plan_of(*finding.adapter);
    return plan != nullptr && serves(*plan, finding.names);
  });
  if (served) finding.severity = std::min(finding.severity, Severity::warning);
}

bool is_whole_for_peft(const RuleContext& context) {
  return all_chosen(context, [&](const EngineRun& run) {
    const AdapterPlan* plan = run.plan_of(context.adapter());
    return run.choice.engine == &engines::peft && plan != nullptr && serves(*plan, {});
  });
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

bool is_later(const EngineChoice& choice) {
  const std::string& version = choice.version.text();
  return choice.version.is_date()
             ? choice.version.is_after(choice.engine->known_to)
             : compare_versions(version, choice.engine->releases.back().version) > 0;
}

std::string later_text(const EngineChoice& choice) {
  const Release& last = choice.engine->releases.back();
  return fmt::format(
      "is later than its rules are known to: {}, {}; what changed since is not followed",
      last.version, choice.engine->known_to);
}

void report_differing_a(RuleContext& context) {
  if (context.plan() == nullptr) return;
  for (const PlanEvent& event : context.plan()->events)
    if (event.cause == context.rule().cause)
      if (auto names = differing(context.subject().tensors, event); !names.empty())
        context.report(std::move(names), event.detail);
}

}  // namespace moelora
