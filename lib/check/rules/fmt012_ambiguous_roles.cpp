#include <fmt/core.h>

#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/stacked_file.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const auto file = stacked_file(context.subject());
  if (!file || !file->ambiguous_roles) return;
  std::vector<std::string> names;
  for (const StackedPair& pair : file->pairs) names.push_back(pair.a->name);
  const StackedPair& pair = file->pairs.front();
  const std::string& version = context.subject().parsed_config->peft_version;
  context.report(
      std::move(names),
      fmt::format("lora_A {} and lora_B {}: the input may be on either of the two{}{}",
                  to_string(pair.a->tensor.shape()), to_string(pair.b->tensor.shape()),
                  version.empty() ? "" : fmt::format("; it was saved by PEFT {}", version),
                  context.spec() == nullptr ? "; the base model may say (--base)" : ""));
}

// down_proj alone, of experts as wide as the model.
void break_it(Specimen& specimen) {
  remove_tensors(specimen, "experts");
  for (int layer : {0, 1})
    set_pair(specimen, fmt::format("model.layers.{}.mlp.experts", layer), {16, 64}, {64, 16});
}

}  // namespace

const Rule fmt012_ambiguous_roles = {
    .id = "FMT012",
    .name = "ambiguous-roles",
    .what =
        "Every stacked pair is square, and nothing says which side of the experts lora_A is on.",
    .why =
        "PEFT put lora_A on the output of [E, out, in] experts until 0.18 and on the input since "
        "0.19.1. A file of the wrong form has the same shapes here, loads everywhere, and "
        "computes nonsense.",
    .fix =
        "{convert} --to peft-params --roles natural (written by PEFT 0.19.1 and newer, and "
        "gpt-oss), or --roles swapped (older): the output is marked.",
    .source = "peft PR 3165; NeMo AutoModel issue 3592",
    .breaks = {.specimen = "gpt_oss_stacked_params",
               .change = "keep down_proj only, of experts as wide as the model",
               .config = {{"target_parameters", R"(["mlp.experts.down_proj"])"},
                          {"auto_mapping", ""}},
               .base_config = {{"intermediate_size", "64"}},
               .apply = break_it},
    .check = check,
};

}  // namespace moelora
