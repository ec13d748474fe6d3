#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/engine/peft/peft.h"
#include "lib/engine/variants.h"

namespace moelora {
namespace {

// Whether every chosen engine is a PEFT that knows the variant.
bool is_known_to_all(const RuleContext& context, const Variant& variant) {
  return all_chosen(context, [&](const EngineRun& run) {
    return run.choice.engine == &engines::peft && variant.key != "kasa_config" &&
           run.choice.has(variant.since);
  });
}

std::vector<std::string> own_tensors(const Subject& subject, std::string_view part) {
  std::vector<std::string> out;
  if (part.empty()) return out;
  for (const NamedTensor& tensor : subject.parts.tensors)
    if (tensor.name.find(part) != std::string::npos) out.push_back(tensor.name);
  return out;
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  for (const Variant& variant : all_variants()) {
    if (!variant.is_on(subject.config)) continue;
    std::vector<std::string> tensors = own_tensors(subject, variant.tensors);
    Finding& finding = context.report_config(
        variant.key,
        fmt::format(
            "{}: SGLang and vLLM have nothing of the kind, {}{}", variant.title, variant.effect,
            tensors.empty()
                ? ""
                : fmt::format("; {} of it {} in the file", pluralized(tensors.size(), "tensor"),
                              tensors.size() == 1 ? "is" : "are")));
    if (variant.training_only && tensors.empty()) finding.severity = Severity::information;
    if (is_known_to_all(context, variant)) finding.severity = Severity::information;
    finding.names = std::move(tensors);
  }
}

}  // namespace

const Rule cfg007_unsupported_variant = {
    .id = "CFG007",
    .name = "unsupported-variant",
    .what =
        "The config switches on a variant of LoRA that servers do not compute: aLoRA, Arrow, "
        "KaSA, QALoRA, BD-LoRA, VeLoRA, MonteCLoRA, layer replication, trainable tokens.",
    .why =
        "SGLang and vLLM read r, lora_alpha, target_modules and a few switches, and ignore every "
        "other key without a word: what is served is plain B·A.",
    .fix = "Train without it, or serve with PEFT.",
    .source = "peft LoraConfig; vLLM peft_helper.py; SGLang lora/lora_config.py",
    .breaks = {.change = "say \"alora_invocation_tokens\": [151644]",
               .config = {{"alora_invocation_tokens", "[151644]"}}},
    .check = check,
};

}  // namespace moelora
