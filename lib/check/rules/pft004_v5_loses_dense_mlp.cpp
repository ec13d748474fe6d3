#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/engine/peft/peft.h"

namespace moelora {
namespace {

bool is_mlp(const ModelSpec& spec, const NamedTensor& tensor) {
  if (tensor.linear < 0) return false;
  const LinearSpec& linear = spec.linears[static_cast<size_t>(tensor.linear)];
  const std::string leaf = linear.memory.substr(linear.memory.rfind('.') + 1);
  return (linear.role == Role::dense_mlp || linear.role == Role::shared_expert) &&
         (leaf == "gate_proj" || leaf == "up_proj" || leaf == "down_proj");
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  const ModelSpec& spec = *context.spec();
  if (!is_fused_in_memory(spec) || !spec.peft.converts || !subject.parts.has_numbered_experts())
    return;
  NameGroups groups;
  for (const NamedTensor& tensor : subject.parts.tensors)
    if (tensor.is_factor() && is_mlp(spec, tensor))
      groups.add(
          "is lost: PEFT takes gate_proj, up_proj and down_proj out of target_modules when it "
          "turns the experts into parameters",
          tensor.name);
  groups.report(context);
}

}  // namespace

extern const Rule pft004_v5_loses_dense_mlp;
const Rule pft004_v5_loses_dense_mlp = {
    .id = "PFT004",
    .name = "v5-loses-dense-mlp",
    .engine = &engines::peft,
    .since = "0.19.0",
    .needs_base = true,
    .what =
        "A per-expert adapter of a base that transformers 5 fuses, with shared experts or dense "
        "layers adapted too.",
    .why =
        "To load it, PEFT rewrites the targets gate_proj, up_proj and down_proj to "
        "target_parameters and drops them as modules: shared experts and dense layers are not "
        "wrapped, their tensors are unexpected keys, of which PeftModel says nothing.",
    .fix = "lora-convert adapter {adapter} OUT --to peft-params --base BASE, which names both.",
    .source = "peft utils/transformers_weight_conversion.py",
    .breaks = {.specimen = "deepseek_v3_per_expert",
               .change = "nothing: PEFT is asked to load it on transformers 5",
               .engine = "peft",
               .apply = [](Specimen&) {}},
    .check = check,
};

}  // namespace moelora
