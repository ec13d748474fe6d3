#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {
namespace {

// A gate of zeros is no repair where the model has none (Nemotron-H).
bool has_gate(const RuleContext& context, const std::string& tensor) {
  const std::string module = parse_tensor_name(tensor).module;
  const ModelSpec& spec = *context.spec();
  return parse_expert_path(module) ? spec.gated
                                   : spec.find_linear(sibling(module, "gate_proj")) != nullptr;
}

void check(RuleContext& context) {
  context.explain_plan([&](Finding& finding, const PlanEvent& event) {
    if (event.tensors.empty() || has_gate(context, event.tensors.front())) return;
    const bool expert =
        parse_expert_path(parse_tensor_name(event.tensors.front()).module).has_value();
    if (!expert) finding.remedy = Remedy::by_hand;  // stacked experts have a place without gates
    finding.fix =
        "This model has no gate_proj, and SGLang has no place for an up_proj alone: train "
        "without it, or merge the adapter into the base model and serve that.";
  });
}

}  // namespace

const Rule sgl005_up_without_gate = {
    .id = "SGL005",
    .name = "up-without-gate",
    .cause = &sglang::cause::up_without_gate,
    .engine = &engines::sglang,
    .what = "up_proj is adapted and gate_proj is not.",
    .why =
        "gate_proj starts the stacking of gate and up; alone up_proj keeps its name, which no "
        "buffer has: the first request ends the server with \"Cannot find target module name for "
        "...up_proj.lora_A.weight in {...}\". gate_proj alone is served, with an up of zeros.",
    .fix = "Add gate_proj with an all-zero lora_B of the same rank; the delta stays the same.",
    .remedy = Remedy::for_engine,
    .source = "SGLang lora/lora.py, normalize_gate_up_proj; lora/mem_pool.py",
    .breaks = {.change = "remove gate_proj",
               .apply = [](Specimen& specimen) { remove_module(specimen, "gate_proj"); }},
    .check = check,
};

}  // namespace moelora
