#include <fmt/core.h>

#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

std::vector<std::string> names_of_both(const FolderFile& file, const TensorMap& own) {
  std::vector<std::string> out;
  for (const auto& entry : file.tensors)
    if (own.count(entry.first) != 0) out.push_back(entry.first);
  return out;
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  for (const FolderFile& file : subject.files) {
    const auto& own = subject.own_files;
    if (std::find(own.begin(), own.end(), file.name) != own.end()) continue;
    std::vector<std::string> both = names_of_both(file, subject.tensors);
    Finding& finding = context.report(fmt::format(
        "lies beside the adapter with {}{}; SGLang loads every .safetensors of the folder as part "
        "of it",
        pluralized(file.tensors.size(), "tensor"),
        both.empty() ? "" : fmt::format(", {} of them named as the adapter's own", both.size())));
    finding.file = finding.where = file.name;
    finding.names = std::move(both);
    set_severity_by_engine(finding, context, {&engines::sglang});
  }
}

void break_it(Specimen& specimen) {
  FolderFile stray{"checkpoint.safetensors", {}};
  stray.tensors.insert(*specimen.tensors().begin());
  specimen.adapter().files.push_back(std::move(stray));
}

}  // namespace

const Rule fmt005_stray_weight_file = {
    .id = "FMT005",
    .name = "stray-weight-file",
    .cause = &cause::stray_weight_file,
    .what = "The folder holds another .safetensors file beside the adapter's.",
    .why =
        "SGLang reads every file that matches *.safetensors, not only adapter_model: tensors of "
        "a checkpoint or of base shards are loaded as LoRA, and one of the same name replaces "
        "the adapter's without a word.",
    .fix = "Move the other weights out of the adapter's folder.",
    .source = "SGLang DefaultModelLoader; oracle stray_safetensors",
    .breaks = {.change = "put checkpoint.safetensors with one of the adapter's tensors beside it",
               .engine = "sglang",
               .apply = break_it},
    .check = check,
};

}  // namespace moelora
