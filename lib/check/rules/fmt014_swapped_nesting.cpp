#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/stacked_file.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const auto file = stacked_file(context.subject());
  if (!file || !file->reading) return;
  if (2 * file->pairs.size() != context.subject().experts.size()) return;  // biases among them
  std::vector<std::string> names;
  for (size_t i = 0; i < file->pairs.size(); ++i) {
    if (file->pairs[i].nesting == 0 || file->reading->projection[i] != Projection::down) continue;
    names.push_back(file->pairs[i].a->name);
    names.push_back(file->pairs[i].b->name);
  }
  if (names.empty()) return;
  context.report(std::move(names),
                 "holds down_proj by its shape; servers take base_layer for gate_up_proj by name");
}

}  // namespace

const Rule fmt014_swapped_nesting = {
    .id = "FMT014",
    .name = "swapped-nesting",
    .severity = Severity::warning,
    .what = "The inner pair, experts.base_layer, holds down_proj and the outer one gate_up_proj.",
    .why =
        "PEFT nests in the order in which a module registers its parameters, gate_up_proj "
        "first; on experts that bitsandbytes parametrised (and in axolotl 0.15) the order was "
        "alphabetical. vLLM goes by the name alone and fails at the copy, or cuts silently "
        "under tensor parallelism.",
    .fix = "Save the adapter again with PEFT 0.19.1 or newer.",
    .remedy = Remedy::rewrite,
    .remedy_to = "peft-params",
    .source = "axolotl PR 3439 and 3483; oracle peft_params_alphabetical",
    .breaks = {.specimen = "qwen3_moe_stacked_params",
               .change = "exchange the names of the two pairs",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, "experts.lora_", "experts.outer.lora_");
                     rename_tensors(specimen, "experts.base_layer.", "experts.");
                     rename_tensors(specimen, "experts.outer.", "experts.base_layer.");
                   }},
    .check = check,
};

}  // namespace moelora
