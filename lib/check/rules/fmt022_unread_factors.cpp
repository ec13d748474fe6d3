#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "lib/adapter/dialect.h"
#include "lib/base/dotted_path.h"
#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"

namespace moelora {
namespace {

void report_foreign(RuleContext& context) {
  const TensorMap& tensors = context.subject().tensors;
  for (ForeignFactors& found : foreign_factors(tensors)) {
    const bool is_read = found.dialect->read != nullptr;
    const std::string message = describe(found, tensors.size());
    Finding& finding = context.report(std::move(found.names), message);
    if (is_read) finding.remedy = Remedy::rewrite;
  }
}

// A dialect of PEFT's own words, told by shapes.
void report_shapes(RuleContext& context) {
  const Subject& subject = context.subject();
  if (subject.dialect == nullptr || subject.dialect->owns != nullptr) return;
  ForeignFactors found{subject.dialect, {}};
  for (const NamedTensor& tensor : subject.parts.tensors)
    if (tensor.is_factor()) found.names.push_back(tensor.name);
  const std::string message = describe(found, subject.tensors.size());
  context.report(std::move(found.names), message).remedy = Remedy::rewrite;
}

// No low-rank pair in any spelling: whole weights, or parts of a checkpoint.
void report_none(RuleContext& context) {
  const AdapterParts& parts = context.subject().parts;
  for (const NamedTensor& tensor : parts.tensors)
    if (tensor.is_factor() || dialect_of_name(tensor.name) != nullptr) return;
  std::vector<std::string> names;
  for (const NamedTensor& tensor : parts.tensors) names.push_back(tensor.name);
  if (names.empty()) return;
  context.report(std::move(names),
                 fmt::format("of {} none is a low-rank factor (lora_A, lora_B): these are whole "
                             "weights",
                             pluralized(parts.tensors.size(), "tensor")));
}

// Parts of a model that adapters carry whole without naming them: PEFT saves embeddings beside the
// factors (save_embedding_layers), and long-context recipes train the norms.
bool is_usual_part(std::string_view name) {
  constexpr std::array<std::string_view, 7> kParts = {"norm", "embed", "lm_head",   "wte",
                                                      "wpe",  "score", "classifier"};
  return std::any_of(kParts.begin(), kParts.end(), [&](std::string_view part) {
    return name.find(part) != std::string_view::npos;
  });
}

// A weight or bias that the base has too; biases that config.bias says were trained.
bool is_of_base(const RuleContext& context, const std::string& name) {
  const bool bias = name.ends_with(".bias");
  if (!bias && !name.ends_with(".weight")) return false;
  const Json* trained = context.subject().config.find("bias");
  if (bias && trained != nullptr && trained->is(Json::Kind::string) &&
      trained->as_string() != "none")
    return true;
  const BaseHeaders* headers = context.deployment().base_headers.get();
  std::string bare = without_wrappers(name);
  while (bare.starts_with(kPeftPrefix)) bare.erase(0, kPeftPrefix.size());
  const ModelSpec* spec = context.subject().spec();
  const bool linear = spec != nullptr && spec->find_linear(parent_of(bare)) != nullptr;
  return linear || (headers != nullptr && headers->weights.count(bare) != 0);
}

bool is_saved(const AdapterConfig& config, const std::string& name) {
  return std::any_of(
      config.modules_to_save.begin(), config.modules_to_save.end(),
      [&](const std::string& saved) { return name.find(saved + ".") != std::string::npos; });
}

// Beside factors that are read, tensors that are none and that the config does not name.
void report_unnamed(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.parsed_config) return;
  std::vector<std::string> names;
  bool factors = false;
  for (const NamedTensor& tensor : subject.parts.tensors) {
    factors = factors || tensor.is_factor();
    if (tensor.part == TensorPart::other && dialect_of_name(tensor.name) == nullptr &&
        !is_saved(*subject.parsed_config, tensor.name) && !is_usual_part(tensor.name) &&
        !is_of_base(context, tensor.name))
      names.push_back(tensor.name);
  }
  if (names.empty() || !factors) return;
  const std::string message = fmt::format(
      "{} of {} tensors are no low-rank factors, and adapter_config.json names them "
      "nowhere (modules_to_save): nothing reads them",
      names.size(), subject.parts.tensors.size());
  Finding& finding = context.report(std::move(names), message);
  finding.fix =
      "Name their modules in modules_to_save if they were trained, or save the adapter without "
      "them.";
  downgrade_if_served(finding, context);
}

void check(RuleContext& context) {
  report_foreign(context);
  report_shapes(context);
  report_none(context);
  report_unnamed(context);
}

}  // namespace

const Rule fmt022_unread_factors = {
    .id = "FMT022",
    .name = "unread-factors",
    .what =
        "Low-rank factors in another trainer's dialect, which lora-convert translates (MLX, "
        "Megatron, torchtune, AutoModel, kohya ...) or nothing reads (AdaLoRA ...), a file without "
        "any factor, or tensors that neither are factors nor are named by the config.",
    .why =
        "PEFT drops such tensors, at most with a warning of unexpected keys, and computes the base "
        "model; vLLM: \"... is unsupported LoRA weight\". They are the training: to drop or merge "
        "them as saved modules throws it away.",
    .fix =
        "lora-convert adapter ADAPTER OUT --to peft-linear where it is translated; else save the "
        "adapter with model.save_pretrained, so that names end in lora_A.weight.",
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
