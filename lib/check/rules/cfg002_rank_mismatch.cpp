#include <fmt/format.h>

#include "lib/check/engine_findings.h"
#include "lib/check/example_edits.h"
#include "lib/check/expected_ranks.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

std::string message(const RankCheck& check, const NamedTensor& tensor) {
  const bool stacked = tensor.expert && tensor.expert->form == ExpertPath::Form::parameters;
  if (check.found == 0)
    return fmt::format("has shape {}, whose {} do not divide by the experts of the base model",
                       to_string(tensor.shape), tensor.is_a() ? "rows" : "columns");
  return fmt::format("has rank {}{}, but adapter_config.json says {}", check.found,
                     stacked ? " an expert" : "", check.expected);
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.parsed_config) return;
  NameGroups groups;
  for (const RankCheck& check : wrong_ranks(subject)) {
    const NamedTensor& tensor = subject.parts.tensors[static_cast<size_t>(check.tensor)];
    groups.add(message(check, tensor), tensor.name);
  }
  groups.report(context, downgrade_if_served);
}

}  // namespace

extern const Rule cfg002_rank_mismatch;
const Rule cfg002_rank_mismatch = {
    .id = "CFG002",
    .name = "rank-mismatch",
    .cause = &cause::rank_mismatch,
    .what = "A factor has another rank than r, after rank_pattern.",
    .why =
        "The scale is lora_alpha / r: with the wrong r the delta is too weak or too strong. "
        "PEFT refuses the sizes; SGLang: \"LoRA buffer shape torch.Size([4, 64]) does not match "
        "weight shape torch.Size([8, 64]).\" on the first request; vLLM pads and serves it with "
        "the config's scale.",
    .fix =
        "Set r, or a rank_pattern entry for the module, to the rank of the tensors, and "
        "lora_alpha so that alpha / r is the scale of the training.",
    .source = "NeMo AutoModel issue 3834; oracles tensor_rank_bigger_than_r, rank_pattern_o",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "say \"r\": 8 of factors of rank 4",
               .engine = "",
               .apply = [](Specimen& specimen) { set_config(specimen, "r", "8"); }},
    .check = check,
};

}  // namespace moelora
