#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/engine/peft/peft.h"

namespace moelora {
namespace {

bool is_mlp(const LinearSpec* linear) {
  if (linear == nullptr) return false;
  const std::string_view leaf = leaf_of(linear->memory);
  return (linear->role == Role::dense_mlp || linear->role == Role::shared_expert) &&
         (leaf == "gate_proj" || leaf == "up_proj" || leaf == "down_proj");
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  const ModelSpec& spec = *context.spec();
  if (!is_fused_in_memory(spec) || !spec.peft.converts || !subject.parts.has_numbered_experts())
    return;
  report_tensors(context, [&](const NamedTensor& tensor) -> std::string {
    if (!tensor.is_factor() || !is_mlp(subject.linear_of(tensor))) return "";
    return "is lost: PEFT takes gate_proj, up_proj and down_proj out of target_modules when it "
           "turns the experts into parameters";
  });
}

}  // namespace

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
    .fix = "Load it with transformers 4, where modules stay modules.",
    .mend = Mend::for_engine,
    .source = "peft utils/transformers_weight_conversion.py",
    .breaks = {.specimen = "deepseek_v3_per_expert",
               .change = "nothing: PEFT is asked to load it on transformers 5"},
    .check = check,
};

}  // namespace moelora
