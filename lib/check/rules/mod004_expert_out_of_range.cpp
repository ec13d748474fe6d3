#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

// "" for a factor of experts that the base model has.
std::string fault(const NamedTensor& tensor, int64_t experts) {
  if (!tensor.expert) return "";
  const ExpertPath& place = *tensor.expert;
  if (place.expert)
    return *place.expert < experts
               ? ""
               : fmt::format("names expert {}; this base model has experts 0 to {}", *place.expert,
                             experts - 1);
  if (place.form != ExpertPath::Form::named || tensor.shape.size() != 3 || tensor.elements() == 0)
    return "";
  const int64_t held = tensor.shape[0];
  return held == 1 || held == experts
             ? ""
             : fmt::format("holds {} experts; this base model has {}", held, experts);
}

void check(RuleContext& context) {
  const int64_t experts = context.spec()->experts;
  if (experts == 0) return;  // MOD006
  report_tensors(
      context, [&](const NamedTensor& tensor) { return fault(tensor, experts); },
      downgrade_if_served);
}

}  // namespace

const Rule mod004_expert_out_of_range = {
    .id = "MOD004",
    .name = "expert-out-of-range",
    .cause = &cause::expert_out_of_range,
    .needs_base = true,
    .what =
        "A tensor names an expert that the base model does not have, or holds another number "
        "of experts.",
    .why =
        "SGLang: \"IndexError: index 4 is out of bounds for dimension 1 with size 4\" on the "
        "first request; with too few experts in a 3-D tensor the rest is zero without a word. "
        "vLLM's name gate refuses the number.",
    .fix =
        "Name the base model that the adapter was trained on (--base); gather the experts of all "
        "ranks before saving.",
    .source = "oracles numbered_expert_out_of_range, stacked_one_expert_too_few, _too_many",
    .breaks = {.change = "add an expert 9 to one layer of 8",
               .apply =
                   [](Specimen& specimen) {
                     add_pair(specimen, "model.layers.0.mlp.experts.9.gate_proj", 64, 24);
                   }},
    .check = check,
};

}  // namespace moelora
