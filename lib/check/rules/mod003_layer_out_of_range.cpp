#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
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
  const BaseModel& base = *context.deployment().base;
  const BaseModules modules(base, nullptr);
  const auto fault = [&](const NamedTensor& tensor) -> std::string {
    if (!tensor.is_factor() || tensor.layer < 0) return "";
    const ModuleFit fit = modules.fit(tensor);
    if (fit == ModuleFit::out_of_range) return beyond(base.spec, base.config);
    if (fit != ModuleFit::foreign_tower) return "";
    return fmt::format(
        "is of another tower than the text model; SGLang goes by \"layers.{}.\" alone and takes it "
        "for the text model's",
        tensor.layer);
  };
  report_tensors(context, fault, downgrade_if_served);
}

}  // namespace

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
    .breaks = {.change = "call layer 1's attention layer 7",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, "layers.1.self_attn", "layers.7.self_attn");
                   }},
    .check = check,
};

}  // namespace moelora
