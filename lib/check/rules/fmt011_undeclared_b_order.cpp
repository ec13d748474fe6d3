#include <fmt/core.h>

#include "lib/adapter/b_order.h"
#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/stacked_file.h"
#include "lib/numeric/stats/b_order_evidence.h"

namespace moelora {
namespace {

// The user or a marker said it, or both orders are the same.
bool is_decided(const Subject& subject, const ToldOrder& told, int64_t experts, int64_t rows) {
  if (told.from == "marked" || experts <= 1 || rows == experts) return true;
  const auto& loaded = subject.loaded;
  return loaded && loaded->adapter.stacked && loaded->adapter.stacked->b_order_from == "given";
}

ToldOrder told_by(const Subject& subject, const StackedFile& file) {
  const bool swapped = file.reading && file.reading->roles == Roles::swapped;
  ToldOrder out;
  for (size_t i = 0; i < file.pairs.size(); ++i) {
    const std::string path = file.reading ? parameter_path(file, i, subject.spec()) : "";
    out = told_b_order(*subject.parsed_config, subject.spec(), path, swapped);
    if (out.from != "marked") break;
  }
  return out;
}

std::string said(const ToldOrder& told) {
  if (told.order)
    return told.evidence + (*told.order == BOrder::expert_major
                                ? "; PEFT and servers read such a file rank-major, "
                                  "so that every expert gets columns of others"
                                : "");
  if (!told.doubt.empty()) return told.doubt;
  return "nothing says in which order the columns of lora_B are; read as PEFT writes them, "
         "rank-major: column k*E + e";
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
  const ToldOrder told = told_by(subject, *file);
  if (is_decided(subject, told, experts, file->pairs[0].a->tensor.dim(0))) return;
  std::vector<std::string> names;
  for (const StackedPair& pair : file->pairs) names.push_back(pair.b->name);
  Finding& finding =
      context.report(std::move(names), said(told) + evidence(subject, *file, experts));
  if (told.order == BOrder::expert_major || !told.doubt.empty()) finding.severity = Severity::error;
  if (context.spec() != nullptr && !file->reading) finding.fix.clear();  // fits no parameter
  if (!told.order) return;
  finding.remedy = Remedy::rewrite;
  finding.remedy_to = layouts::peft_params.id;
}

}  // namespace

const Rule fmt011_undeclared_b_order = {
    .id = "FMT011",
    .name = "undeclared-b-order",
    .severity = Severity::information,
    .what =
        "A stacked lora_B whose column order nothing declares; an error where its writer's stamp "
        "says that it is not PEFT's (Unsloth, Megatron-Bridge), or may say so.",
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
                          {"auto_mapping", ""}}},
    .check = check,
};

}  // namespace moelora
