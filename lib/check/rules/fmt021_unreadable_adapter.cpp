#include "lib/check/read_problems.h"
#include "lib/check/rule.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  for (const ReadProblem* problem : problems_of(context.subject(), ProblemKind::unreadable)) {
    Finding& finding = context.report(problem->error.text());
    finding.file = problem->file;
    point_at(finding, problem->error);
    if (!problem->error.hint().empty()) finding.fix = problem->error.hint();
  }
}

}  // namespace

extern const Rule fmt021_unreadable_adapter;
const Rule fmt021_unreadable_adapter = {
    .id = "FMT021",
    .name = "unreadable-adapter",
    .what =
        "There is no adapter to read: no such folder, no adapter_config.json or one that is no "
        "JSON, weights that are another kind of file.",
    .why =
        "A server stops with FileNotFoundError or JSONDecodeError (vLLM: "
        "LoRAAdapterNotFoundError). A Git LFS pointer or an HTML page in place of the weights "
        "is a download that went wrong.",
    .fix =
        "An adapter is a folder with adapter_config.json and adapter_model.safetensors: save or "
        "download it again.",
    .source = "vLLM peft_helper.py; huggingface_hub",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "take adapter_config.json away",
               .engine = "",
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
