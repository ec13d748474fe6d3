#include <fmt/core.h>

#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/stacked_file.h"
#include "lib/numeric/stats/b_order_evidence.h"

namespace moelora {
namespace {

bool is_unsloth(const AdapterConfig& config) {
  return config.base_model.find("unsloth/") != std::string::npos;
}

// The user or a marker said it, or both orders are the same.
bool is_decided(const Subject& subject, int64_t experts, int64_t rows) {
  if (subject.parsed_config->b_order || experts <= 1 || rows == experts) return true;
  const auto& loaded = subject.loaded;
  return loaded && loaded->adapter.stacked && loaded->adapter.stacked->b_order_from == "given";
}

std::string said(const Subject& subject, bool unsloth) {
  if (!unsloth)
    return "nothing says in which order the columns of lora_B are; read as PEFT writes them, "
           "rank-major: column k*E + e";
  return fmt::format(
      "the base model is {}, and Unsloth wrote the columns of a stacked lora_B in either order; "
      "there is no \"lora_B_layout\" that says which",
      subject.parsed_config->base_model);
}

// Only reported: nothing is decided by it.
std::string evidence(const Subject& subject, const StackedFile& file, int64_t experts) {
  if (subject.values.empty()) return {};
  const BOrderEvidence found = b_order_evidence(file.pairs, experts, 0);
  return found.pairs > 0 ? "; " + describe(found) : "";
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  const auto file = stacked_file(subject);
  if (!file || file->pairs.empty()) return;
  const int64_t experts = stacked_experts(*file, subject);
  if (is_decided(subject, experts, file->pairs[0].a->tensor.dim(0))) return;
  std::vector<std::string> names;
  for (const StackedPair& pair : file->pairs) names.push_back(pair.b->name);
  const bool unsloth = is_unsloth(*subject.parsed_config);
  Finding& finding =
      context.report(std::move(names), said(subject, unsloth) + evidence(subject, *file, experts));
  if (unsloth) finding.severity = Severity::error;
}

}  // namespace

const Rule fmt011_undeclared_b_order = {
    .id = "FMT011",
    .name = "undeclared-b-order",
    .severity = Severity::information,
    .what =
        "A stacked lora_B whose column order nothing declares; an error where the base model is "
        "an Unsloth repository.",
    .why =
        "PEFT, vLLM and others read column k*E + e; Unsloth trained with e*r + k until "
        "2026-09-17, in tensors of the same shape. Read in the wrong order every expert gets "
        "columns of others: the answers stay fluent, what was learnt is scrambled.",
    .fix =
        "{convert} --to peft-params --b-order rank-major marks the output as PEFT writes it; "
        "--b-order expert-major is for files of Unsloth before 2026-09-17.",
    .source = "unsloth-zoo PR 1269 and 1232, unsloth issue 6930; peft lora/layer.py",
    .breaks = {.specimen = "qwen3_moe_stacked_params",
               .change = "name an Unsloth base model",
               .config = {{"base_model_name_or_path", R"("unsloth/Qwen3-30B-A3B-Instruct")"},
                          {"moelora", ""},
                          {"lora_B_layout", ""}}},
    .check = check,
};

}  // namespace moelora
