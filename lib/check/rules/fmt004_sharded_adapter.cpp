#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/check/subject/read_problems.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (subject.sharded) {
    Finding& finding =
        context.report(fmt::format("the weights are {} shards; PEFT and vLLM look for one "
                                   "adapter_model.safetensors and read no shards",
                                   subject.own_files.size()));
    finding.file = subject.main_file;
    set_severity_by_engine(finding, context, {&engines::peft, &engines::vllm});
  }
  for (const ReadProblem* problem : problems_of(subject, ProblemKind::shards))
    context.report(problem->error).where = problem->error.where();
  if (subject.unread_index) {
    Finding& finding = context.report(*subject.unread_index);
    finding.where = subject.unread_index->where();
    finding.severity = Severity::warning;
  }
}

}  // namespace

const Rule fmt004_sharded_adapter = {
    .id = "FMT004",
    .name = "sharded-adapter",
    .what =
        "The weights are shards, or shards that do not fit together: one missing, a tensor in "
        "two, a name that leaves the folder.",
    .why =
        "PEFT finds no weights (it looks for adapter_model.safetensors, then .bin), and vLLM "
        "says \"... doesn't contain tensors\". SGLang reads every file of the folder.",
    .fix = "Save the adapter again in one file.",
    .remedy = Remedy::rewrite,
    .source = "peft/utils/save_and_load.py; vLLM lora_model.py; transformers issue 47176",
    .breaks = {.change = "split the weights into two shards with an index",
               .engine = "vllm",
               .apply =
                   [](Specimen& specimen) {
                     specimen.adapter().sharded = true;
                     specimen.adapter().main_file = "adapter_model.safetensors.index.json";
                   }},
    .check = check,
};

}  // namespace moelora
