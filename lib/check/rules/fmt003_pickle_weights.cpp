#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/check/subject/read_problems.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (subject.pickle)
    context.report("the weights are a pickle, read here without running it").file =
        subject.main_file;
  for (const ReadProblem* problem : problems_of(subject, ProblemKind::pickle))
    context.report(problem->error).severity = Severity::error;
}

}  // namespace

const Rule fmt003_pickle_weights = {
    .id = "FMT003",
    .name = "pickle-weights",
    .severity = Severity::information,
    .what = "The weights are a pickle (.bin, .pt) rather than safetensors.",
    .why =
        "Loading a pickle can run code that came with it, so servers and hubs increasingly "
        "refuse one; torch.load(weights_only=True) was bypassed more than once "
        "(CVE-2025-32434, CVE-2026-24747). A pickle that goes beyond plain tensors, or whose "
        "archive contradicts itself, is refused here.",
    .fix = "Save the adapter again as safetensors.",
    .remedy = Remedy::rewrite,
    .source = "torch/_weights_only_unpickler.py",
    .breaks = {.change = "name the weights adapter_model.bin",
               .apply =
                   [](Specimen& specimen) {
                     specimen.adapter().pickle = true;
                     specimen.adapter().main_file = "adapter_model.bin";
                   }},
    .check = check,
};

}  // namespace moelora
