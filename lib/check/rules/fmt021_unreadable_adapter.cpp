#include <algorithm>

#include "lib/adapter/tensor_name.h"
#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/check/subject/read_problems.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

// Whether a rule of no engine, another than this, finds more than information in the adapter.
bool is_told_by_others(const RuleContext& context) {
  std::vector<Finding> found;
  for (const Rule* rule : all_rules()) {
    if (rule == &context.rule() || rule->engine != nullptr || rule->whole_deployment) continue;
    if (rule->numeric || (rule->requires_base() && context.spec() == nullptr)) continue;
    RuleContext scratch(*rule, context.deployment(), context.adapter(), nullptr, found);
    rule->check(scratch);
  }
  return std::any_of(found.begin(), found.end(), [](const Finding& finding) {
    return finding.severity != Severity::information;
  });
}

// Whether another tensor names the same factor, with or without base_model.model., an adapter's
// name or training's wrappers: whoever takes both keeps one of them.
bool has_twin(const Subject& subject, const std::string& name) {
  const TensorName own = parse_tensor_name(name);
  return std::any_of(subject.parts.tensors.begin(), subject.parts.tensors.end(),
                     [&](const NamedTensor& tensor) {
                       if (tensor.name == name) return false;
                       const TensorName other = parse_tensor_name(tensor.name);
                       return other.module == own.module && other.part == own.part;
                     });
}

// What the readers of lora-convert refuse and no rule has words for.
void check_interpretation(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.adapter_error || is_told_by_others(context)) return;
  const Error& error = *subject.adapter_error;
  Finding& finding = context.report(error);
  finding.file = subject.main_file;
  finding.where = error.where();
  if (subject.tensors.count(error.where()) != 0) finding.names = {error.where()};
  if (has_twin(subject, error.where())) return;
  downgrade_if_served(finding, context);
  if (is_whole_for_peft(context)) finding.severity = Severity::information;
}

void check(RuleContext& context) {
  check_interpretation(context);
  for (const ReadProblem* problem : problems_of(context.subject(), ProblemKind::unreadable)) {
    Finding& finding = context.report(problem->error);
    finding.file = problem->file;
    const Location& at = problem->error.location();
    finding.line = at.line;
    finding.column = at.column;
    if (at.line == 0) finding.where = problem->error.where();
  }
}

}  // namespace

const Rule fmt021_unreadable_adapter = {
    .id = "FMT021",
    .name = "unreadable-adapter",
    .cause = &cause::unreadable_adapter,
    .what =
        "There is no adapter to read: no such folder, no adapter_config.json or one that is not "
        "JSON, weights that are another kind of file, names that fit no reading.",
    .why =
        "A server stops with FileNotFoundError or JSONDecodeError (vLLM: "
        "LoRAAdapterNotFoundError). A Git LFS pointer or an HTML page in place of the weights "
        "is a download that went wrong.",
    .fix =
        "An adapter is a folder with adapter_config.json and adapter_model.safetensors: save or "
        "download it again.",
    .source = "vLLM peft_helper.py; huggingface_hub",
    .breaks = {.change = "take adapter_config.json away",
               .apply =
                   [](Specimen& specimen) {
                     specimen.adapter().has_config = false;
                     specimen.adapter().problems.push_back(
                         {ReadProblem::Kind::no_config, "",
                          Error("adapter", "has no adapter_config.json")});
                   }},
    .check = check,
};

}  // namespace moelora
