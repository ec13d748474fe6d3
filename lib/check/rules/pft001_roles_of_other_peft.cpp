#include <fmt/core.h>

#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/stacked_file.h"
#include "lib/engine/peft/peft.h"

namespace moelora {
namespace {

std::string shown(const StackedPair& pair) {
  return fmt::format("lora_A {} and lora_B {}", to_string(pair.a->tensor.shape()),
                     to_string(pair.b->tensor.shape()));
}

void check(RuleContext& context) {
  const auto file = stacked_file(context.subject());
  if (!file || !file->reading || context.spec()->memory.numbered) return;
  const Roles expected = peft_roles(*context.spec(), context.run().choice);
  if (file->reading->roles == expected) return;
  context.report(names_of(*file),
                 fmt::format("{} are {}; this PEFT wraps the experts of this base model with "
                             "lora_A on the {}",
                             shown(file->pairs.front()),
                             file->reading->roles == Roles::natural ? "natural" : "swapped",
                             expected == Roles::natural ? "input" : "output"));
}

}  // namespace

const Rule pft001_roles_of_other_peft = {
    .id = "PFT001",
    .name = "roles-of-other-peft",
    .engine = &engines::peft,
    .needs_base = true,
    .what = "The stacked pairs have lora_A on the other side than this release of PEFT.",
    .why =
        "PEFT read every parameter as [E, in, out] until 0.18, those marked as transposed the "
        "wrong way round in 0.19.0, and right since 0.19.1. It stops with a size mismatch, or, "
        "where the sizes are equal, computes nonsense without a word.",
    .fix = "Load it with the PEFT that wrote it.",
    .mend = Mend::for_engine,
    .source = "peft lora/layer.py, PR 3165; NeMo AutoModel issue 3592",
    .breaks = {.specimen = "qwen3_moe_stacked_params",
               .change = "nothing: PEFT 0.18 is asked to load what 0.19.1 and newer write",
               .engine = "peft@0.18"},
    .check = check,
};

}  // namespace moelora
