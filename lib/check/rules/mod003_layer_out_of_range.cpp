#include <fmt/format.h>

#include "lib/check/engine_findings.h"
#include "lib/check/example_edits.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/base_modules.h"
#include "lib/engine/cause.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

std::string beyond(const ModelSpec& spec, const Json& config) {
  const Json* extra = config.find("num_nextn_predict_layers");
  const bool predicts = extra != nullptr && extra->is(Json::Kind::integer) && extra->as_int() > 0;
  return fmt::format(
      "names a layer beyond the last; this base model has layers 0 to {}{}", spec.layers - 1,
      predicts ? " (the prediction layers behind them serve the draft model only)" : "");
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  const BaseModel& base = *context.deployment().base;
  BaseModules modules(base, nullptr);
  NameGroups groups;
  for (const NamedTensor& tensor : subject.parts.tensors) {
    if (!tensor.is_factor() || tensor.layer < 0) continue;
    const ModuleFit fit = modules.fit(tensor, subject);
    if (fit == ModuleFit::out_of_range)
      groups.add(beyond(base.spec, base.config), tensor.name);
    else if (fit == ModuleFit::foreign_tower)
      groups.add(
          fmt::format("is of another tower than the text model; SGLang goes by \"layers.{}.\" "
                      "alone and takes it for the text model's",
                      tensor.layer),
          tensor.name);
  }
  groups.report(context, downgrade_if_served);
}

}  // namespace

extern const Rule mod003_layer_out_of_range;
const Rule mod003_layer_out_of_range = {
    .id = "MOD003",
    .name = "layer-out-of-range",
    .cause = &cause::layer_out_of_range,
    .needs_base = true,
    .what =
        "A tensor names a layer that the base model does not have, or one of a vision tower or "
        "of prediction layers.",
    .why =
        "SGLang: \"IndexError: index 2 is out of range\" when it loads the adapter, and a tower's "
        "layers.N lands in the text model's layer N. vLLM drops such layers without a word.",
    .fix =
        "Name the base model that the adapter was trained on (--base); leave towers and "
        "prediction layers out of target_modules.",
    .source = "SGLang issue 28784; oracles layer_out_of_range, vision_tower_same_layer_id",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "call layer 1's attention layer 7",
               .engine = "",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, "layers.1.self_attn", "layers.7.self_attn");
                   }},
    .check = check,
};

}  // namespace moelora
