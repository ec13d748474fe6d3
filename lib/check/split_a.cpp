#include "lib/check/split_a.h"

#include <fmt/format.h>

#include <array>

#include "lib/adapter/adapter.h"

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

}  // namespace

void report_differing_a(RuleContext& context) {
  const AdapterPlan* plan = context.plan();
  if (plan == nullptr) return;
  for (const PlanEvent& event : plan->events) {
    if (event.cause != context.rule().cause) continue;
    std::vector<std::string> names = differing(context.subject().tensors, event);
    if (!names.empty()) context.report(std::move(names), event.detail);
  }
}

}  // namespace moelora
