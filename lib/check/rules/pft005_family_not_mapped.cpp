#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/engine/peft/peft.h"

namespace moelora {
namespace {

// "" where PEFT has a module, or makes the tensors fit.
std::string obstacle(const ModelSpec& spec, const EngineChoice& peft) {
  if (!spec.hub.numbered && !spec.memory.numbered)
    return fmt::format("names one expert; {} has its experts in one parameter, in every form",
                       spec.family);
  if (!is_fused_in_memory(spec) || spec.peft.converts || !peft.has("0.19.0")) return "";
  return fmt::format(
      "names one expert; transformers 5 holds the experts of {} in one parameter, and PEFT does "
      "not convert adapters of this family",
      spec.model_type);
}

void check(RuleContext& context) {
  const std::string what = obstacle(*context.spec(), context.run().choice);
  report_tensors(
      context, [&](const NamedTensor& tensor) { return tensor.is_numbered_expert() ? what : ""; });
}

}  // namespace

const Rule pft005_family_not_mapped = {
    .id = "PFT005",
    .name = "family-not-mapped",
    .engine = &engines::peft,
    .needs_base = true,
    .what =
        "A per-expert adapter of a family whose experts are one parameter, which PEFT does not "
        "convert.",
    .why =
        "PEFT 0.19 and newer converts per-expert adapters for families like qwen2_moe and "
        "mixtral. Of others (phimoe, lfm2_moe, jamba, qwen3_5_moe_text, nemotron_h, ...) it "
        "leaves the config and rewrites the keys: nothing receives them.",
    .fix = "Load it with transformers 4, where the experts are modules.",
    .mend = Mend::for_engine,
    .source = "peft utils/transformers_weight_conversion.py; transformers conversion_mapping.py",
    .breaks = {.specimen = "nemotron_h_per_expert",
               .change = "nothing: PEFT is asked to load it on transformers 5"},
    .check = check,
};

}  // namespace moelora
