#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/stacked_file.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  const auto file = stacked_file(subject);
  if (!file || context.spec() == nullptr) return;
  NameGroups groups;
  for (size_t i = 0; i < file->pairs.size(); ++i) {
    const StackedPair& pair = file->pairs[i];
    const auto local = local_experts(*file, i, subject);
    if (!local) continue;
    const int64_t experts = context.spec()->experts, rows = pair.a->tensor.dim(0);
    const std::string other =
        rows % experts == 0 ? fmt::format("; or all {} of rank {}, which the config does not say",
                                          experts, rows / experts)
                            : "";
    groups.add(fmt::format("has {} rows: {} experts of rank {}, but the base model has {}{}", rows,
                           *local, rows / *local, experts, other),
               pair.a->name);
  }
  groups.report(context, downgrade_if_served);
}

void break_it(Specimen& specimen) {
  for (int layer : {0, 1}) {
    const std::string experts = fmt::format("model.layers.{}.mlp.experts", layer);
    set_pair(specimen, experts + ".base_layer", {16, 64}, {48, 16});
    set_pair(specimen, experts, {16, 24}, {64, 16});
  }
}

}  // namespace

const Rule fmt017_local_experts_only = {
    .id = "FMT017",
    .name = "local-experts-only",
    .needs_base = true,
    .what = "A stacked pair holds an even share of the experts: r x E_local rows.",
    .why =
        "Under expert parallelism each rank holds its part; a save that does not gather leaves "
        "one rank's part as the whole. vLLM divides the rows by all experts and spreads them: "
        "every expert gets others' rows at a lower rank, without a word.",
    .fix =
        "Gather the experts of all ranks before saving (axolotl: expert_parallel's gathering "
        "save), or save from a run without expert parallelism.",
    .source = "axolotl integrations/expert_parallel/shard.py; oracle stacked_3_experts",
    .breaks = {.specimen = "qwen3_moe_stacked_params",
               .change = "keep the rows and columns of 4 of the 8 experts",
               .apply = break_it},
    .check = check,
};

}  // namespace moelora
