#include <fmt/core.h>

#include "lib/base/utf8.h"
#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/rule_context.h"
#include "lib/engine/peft/peft.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  const Json* layers = subject.config.find("layers_to_transform");
  if (!subject.parsed_config || layers == nullptr || layers->is(Json::Kind::null) ||
      !subject.parts.has_numbered_experts())
    return;
  const std::string& version = subject.parsed_config->peft_version;
  const std::string release = release_of(version);
  if (!release.empty() && compare_versions(release, "0.20.0") >= 0) return;
  context.report_config(
      "layers_to_transform",
      fmt::format("was applied by {}, which may have taken the number of an expert for that of its "
                  "layer",
                  version.empty() ? "PEFT 0.17 or older (or a trainer that names no version)"
                                  : "PEFT " + printable(version)));
}

}  // namespace

const Rule cfg009_greedy_layer_pattern = {
    .id = "CFG009",
    .name = "greedy-layer-pattern",
    .severity = Severity::warning,
    .what = "layers_to_transform was written by PEFT before 0.20 on a base with numbered experts.",
    .why =
        "The pattern was greedy: in model.layers.1.mlp.experts.0.up_proj it read 0. Experts "
        "with the chosen layers' numbers were trained in every layer, others in none.",
    .fix =
        "Look at which layers have expert tensors (lora-convert inspect {adapter}); train again "
        "with PEFT 0.20 or newer.",
    .source = "peft PR 3318",
    .breaks = {.change = "say \"layers_to_transform\": [0, 1] and \"peft_version\": \"0.19.1\"",
               .config = {{"layers_to_transform", "[0, 1]"}, {"peft_version", R"("0.19.1")"}}},
    .check = check,
};

}  // namespace moelora
