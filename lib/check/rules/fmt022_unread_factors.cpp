#include <fmt/core.h>

#include "lib/adapter/foreign_names.h"
#include "lib/check/define_rule.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"

namespace moelora {
namespace {

void report_foreign(RuleContext& context) {
  const TensorMap& tensors = context.subject().tensors;
  for (ForeignFactors& found : foreign_factors(tensors)) {
    const std::string advice(found.spelling->advice);
    const std::string message = describe(found, tensors.size());
    context.report(std::move(found.names), message).fix = advice;
  }
}

// No low-rank pair in any spelling: whole weights, or parts of a checkpoint.
void report_none(RuleContext& context) {
  const AdapterParts& parts = context.subject().parts;
  for (const NamedTensor& tensor : parts.tensors)
    if (tensor.is_factor() || foreign_spelling(tensor.name) != nullptr) return;
  std::vector<std::string> names;
  for (const NamedTensor& tensor : parts.tensors) names.push_back(tensor.name);
  if (names.empty()) return;
  context.report(std::move(names),
                 fmt::format("of {} none is a low-rank factor (lora_A, lora_B): these are whole "
                             "weights",
                             pluralized(parts.tensors.size(), "tensor")));
}

void check(RuleContext& context) {
  report_foreign(context);
  report_none(context);
}

}  // namespace

const Rule fmt022_unread_factors = {
    .id = "FMT022",
    .name = "unread-factors",
    .what =
        "Low-rank factors in a spelling that nothing reads (MLX, torchtune, kohya, diffusers, "
        "Megatron, AutoModel, AdaLoRA ...), or a file without any factor.",
    .why =
        "PEFT drops such tensors, at most with a warning of unexpected keys, and computes the base "
        "model; vLLM: \"... is unsupported LoRA weight\". They are the training: to drop or merge "
        "them as saved modules throws it away.",
    .fix = "Save the adapter with model.save_pretrained, so that names end in lora_A.weight.",
    .source = "mlx-lm, torchtune, kohya-ss, NeMo AutoModel, Megatron-Bridge; PEFT 0.21.2, run",
    .breaks = {.change = "write lora_down and lora_up for lora_A and lora_B",
               .engine = "peft",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, ".lora_A.", ".lora_down.");
                     rename_tensors(specimen, ".lora_B.", ".lora_up.");
                   }},
    .implies = {"PFT002", "PFT012"},
    .check = check,
};

}  // namespace moelora
