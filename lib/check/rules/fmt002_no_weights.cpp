#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/read_problems.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  for (const ReadProblem* problem : problems_of(subject, ProblemKind::no_weights))
    context.report(problem->error);
  if (!subject.own_files.empty() && subject.tensors.empty())
    context.report("holds no tensor").file = subject.main_file;
  if (subject.sharded && !chosen(context, engines::peft).empty()) {
    // Joined with what PEFT says of it.
    Finding& finding = context.report("the weights are shards, and PEFT looks for one file");
    finding.file = subject.main_file;
    finding.remedy = Remedy::rewrite;
    finding.fix = "Save the adapter again in one file.";
  }
}

}  // namespace

const Rule fmt002_no_weights = {
    .id = "FMT002",
    .name = "no-weights",
    .cause = &cause::no_weights,
    .what = "The folder has no weights file, or one without a tensor.",
    .why =
        "PEFT, SGLang (\"Cannot find any model weights with ...\") and vLLM (\"... doesn't "
        "contain tensors\") stop where there is no file. A file without a tensor stops vLLM "
        "with StopIteration; SGLang serves the base model under the adapter's name.",
    .fix =
        "Save the adapter with model.save_pretrained on the rank that holds the weights; under "
        "DeepSpeed ZeRO-3 with stage3_gather_16bit_weights_on_model_save, else they are in "
        "global_step*/ alone (zero_to_fp32.py gathers them).",
    .source = "SGLang DefaultModelLoader; vLLM lora_model.py",
    .breaks = {.change = "remove every tensor",
               .apply = [](Specimen& specimen) { remove_tensors(specimen, ""); }},
    .check = check,
};

}  // namespace moelora
