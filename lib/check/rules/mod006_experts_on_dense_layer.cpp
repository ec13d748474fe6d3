#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const ModelSpec& spec = *context.spec();
  const auto fault = [&](const NamedTensor& tensor) -> std::string {
    if (!tensor.expert || tensor.expert->layer >= spec.layers || spec.is_moe(tensor.expert->layer))
      return "";
    if (spec.experts == 0) return "is of a routed expert, and this base model has none";
    return fmt::format("is of a routed expert, and layer {} of this base model is dense",
                       tensor.expert->layer);
  };
  report_tensors(context, fault, downgrade_if_served);
}

}  // namespace

const Rule mod006_experts_on_dense_layer = {
    .id = "MOD006",
    .name = "experts-on-dense-layer",
    .cause = &cause::experts_on_dense_layer,
    .needs_base = true,
    .what = "Routed-expert tensors of a layer that has no experts.",
    .why =
        "SGLang drops them without a word, or stops with KeyError: 'down_proj_moe'; vLLM finds "
        "no module at their path and leaves them unused.",
    .fix = "Name the base model that the adapter was trained on (--base).",
    .source = "oracle experts_on_dense_layer",
    .breaks = {.specimen = "deepseek_v3_per_expert",
               .change = "move the experts of layer 1 to the dense layer 0",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, "layers.1.mlp.experts.", "layers.0.mlp.experts.");
                   }},
    .check = check,
};

}  // namespace moelora
