#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  std::vector<std::string> names;
  for (const NamedTensor& tensor : context.subject().parts.tensors)
    if (tensor.is_named_experts()) names.push_back(tensor.name);
  if (names.empty()) return;
  const Shape shape = context.subject().tensors.at(names.front()).shape();
  context.report(std::move(names),
                 fmt::format("{} holds all experts under one name, which PEFT does not know",
                             to_string(shape)));
}

}  // namespace

const Rule pft002_keys_peft_ignores = {
    .id = "PFT002",
    .name = "keys-peft-ignores",
    .engine = &engines::peft,
    .what = "Shared-outer or 3-D expert tensors.",
    .why =
        "PEFT has no module of these names: it warns of missing keys, if at all, and the experts "
        "stay those of the base model.",
    .fix = "Load it with a server: PEFT has no such modules.",
    .mend = Mend::for_engine,
    .source = "peft save_and_load.py; Megatron-Bridge PR 6076",
    .breaks = {.specimen = "qwen3_moe_shared_outer",
               .change = "nothing: it is a layout of servers"},
    .check = check,
};

}  // namespace moelora
