#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const AdapterParts& parts = context.subject().parts;
  NameGroups groups;
  for (const FactorPair& pair : parts.pairs) {
    if (pair.a >= 0 && pair.b >= 0) continue;
    const bool embedding = parts.any(pair).part >= TensorPart::embedding_a;
    groups.add(fmt::format("has no lora_{}{} beside it", embedding ? "embedding_" : "",
                           pair.a < 0 ? 'A' : 'B'),
               parts.any(pair).name);
  }
  groups.report(context, downgrade_if_served);
}

}  // namespace

const Rule fmt006_orphan_factor = {
    .id = "FMT006",
    .name = "orphan-factor",
    .cause = &cause::orphan_factor,
    .what = "A lora_A without its lora_B, or the reverse.",
    .why =
        "The pair computes B·A: one factor alone is nothing. PEFT warns of missing keys and "
        "starts the other factor anew; SGLang leaves it zero, or fails in slicing; vLLM fails "
        "in torch.stack or at the copy.",
    .fix = "The file is incomplete: save the adapter again.",
    .source = "oracles o_a_without_b, o_b_without_a, k_a_without_b",
    .breaks = {.change = "remove the lora_B of one o_proj",
               .apply =
                   [](Specimen& specimen) {
                     remove_tensors(specimen, "layers.0.self_attn.o_proj.lora_B");
                   }},
    .check = check,
};

}  // namespace moelora
