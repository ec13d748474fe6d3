#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/check/subject/read_problems.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  for (const ReadProblem* problem : problems_of(subject, ProblemKind::malformed)) {
    Finding& finding = context.report(problem->error);
    const Location& at = problem->error.location();
    if (!at.file.empty()) finding.where = at.item;
    finding.file = problem->file.empty() ? "adapter_model.safetensors" : problem->file;
    if (is_stray(subject, *problem)) set_severity_by_engine(finding, context, {&engines::sglang});
  }
}

void break_it(Specimen& specimen) {
  Subject& adapter = specimen.adapter();
  adapter.files.clear();
  adapter.own_files.clear();
  adapter.main_file.clear();
  adapter.problems.push_back(
      {ReadProblem::Kind::bad_weights, "",
       Error(in_file("adapter/adapter_model.safetensors", "lm_head.lora_A.weight"),
             "holds 512 bytes, its shape [4, 64] of F32 needs 1024")});
}

}  // namespace

const Rule fmt001_malformed_safetensors = {
    .id = "FMT001",
    .name = "malformed-safetensors",
    .what = "A weights file breaks the safetensors format.",
    .why =
        "Every reader that follows the format refuses the file, and one that does not may read "
        "values from the wrong place. Ours is as strict as the reference reader 0.8, and "
        "refuses duplicate names besides, of which the reference keeps one without a word.",
    .fix = "Save or download the adapter again; a file that was cut short cannot be repaired.",
    .source = "safetensors/src/tensor.rs, read_metadata and Metadata::validate",
    .breaks = {.change = "say that a tensor has half the bytes its shape needs", .apply = break_it},
    .check = check,
};

}  // namespace moelora
