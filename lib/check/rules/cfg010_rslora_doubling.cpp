#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/rule_context.h"
#include "lib/engine/peft/peft.h"

namespace moelora {
namespace {

bool has_gate_and_up(const Subject& subject) {
  bool gate = false, up = false;
  for (const NamedTensor& tensor : subject.parts.tensors) {
    if (!tensor.is_numbered_expert()) continue;
    gate = gate || tensor.expert->projection == Projection::gate;
    up = up || tensor.expert->projection == Projection::up;
  }
  return gate && up;
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!chosen(context, engines::peft).empty()) return;  // PFT007
  if (!subject.parsed_config || !subject.parsed_config->use_rslora ||
      !is_fused_in_memory(*context.spec()) || !context.spec()->peft.converts ||
      !has_gate_and_up(subject))
    return;
  Finding& finding = context.report_config(
      "use_rslora",
      "is true, and PEFT joins gate and up of the experts to one pair of twice the rank and alpha "
      "for transformers 5: alpha / sqrt(r) grows by sqrt(2)");
  set_severity_by_engine(finding, context, {&engines::peft});
}

}  // namespace

const Rule cfg010_rslora_doubling = {
    .id = "CFG010",
    .name = "rslora-doubling",
    .needs_base = true,
    .what =
        "A per-expert adapter with rsLoRA of a base model whose gate and up transformers 5 fuses.",
    .why =
        "PEFT 0.19 and newer doubles r and lora_alpha of the joined gate_up_proj and does not "
        "look at use_rslora: alpha / sqrt(r) is then 1.414 times what was trained.",
    .fix =
        "Set use_rslora to false and lora_alpha to lora_alpha * sqrt(r): the same scale, spelled "
        "out.",
    .remedy = Remedy::rewrite,
    .remedy_to = "peft-params",
    .source = "peft utils/transformers_weight_conversion.py (checked: 1.41421)",
    .breaks = {.change = "say \"use_rslora\": true", .config = {{"use_rslora", "true"}}},
    .check = check,
};

}  // namespace moelora
