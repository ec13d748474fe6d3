#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/engine/peft/peft.h"

namespace moelora {
namespace {

struct Variant {
  std::string_view key, title;
  std::string_view since;    // release of PEFT that has it; "" before any that is known here
  std::string_view effect;   // what a server computes without it
  std::string_view tensors;  // a part of the names of its own tensors; "" for none
  bool training_only;        // nothing is lost when serving, but for those tensors
};

constexpr std::array<Variant, 9> kVariants = {{
    {"alora_invocation_tokens", "activated LoRA", "0.18",
     "the delta is applied to every token, not only after the invocation", "", false},
    {"arrow_config", "Arrow routing", "0.18", "one of several routed adapters is served alone", "",
     false},
    {"kasa_config", "KaSA", "", "the diagonal and the truncated base weights are lost", "lora_diag",
     false},
    {"use_qalora", "QALoRA", "0.17", "lora_A expects pooled inputs, its shape fits no module", "",
     false},
    {"use_bdlora", "block-diagonal LoRA", "0.19.0",
     "factors are blocks, their shapes fit no module", "", false},
    {"velora_config", "VeLoRA", "0.20", "it compresses activations in training only", "lora_velora",
     true},
    {"monteclora_config", "MonteCLoRA", "0.20", "its noise belongs to training only",
     "lora_monteclora", true},
    {"layer_replication", "layer replication", "0.17",
     "the layers of the file are not those of the base model", "", false},
    {"trainable_token_indices", "trainable tokens", "0.17",
     "the trained rows of the embedding are lost", "trainable_tokens", false},
}};

bool is_on(const Json* value) {
  if (value == nullptr || value->is(Json::Kind::null)) return false;
  if (value->is(Json::Kind::boolean)) return value->as_bool();
  if (value->is(Json::Kind::array)) return !value->items().empty();
  return true;
}

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
  for (const Variant& variant : kVariants) {
    const Json* value = subject.config.find(variant.key);
    if (!is_on(value)) continue;
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
