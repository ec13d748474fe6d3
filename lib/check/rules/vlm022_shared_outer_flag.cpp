#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {
namespace {

// Whether any expert factor of the file is one matrix for all experts.
bool shares_factors(const Subject& subject) {
  return std::any_of(subject.experts.begin(), subject.experts.end(), [](const ExpertTensor& t) {
    return t.tensor.rank() == 3 && t.tensor.dim(0) == 1;
  });
}

void check(RuleContext& context) {
  const bool shared = shares_factors(context.subject());
  context.explain_plan([&](Finding& finding, const PlanEvent&) {
    if (shared) return;
    finding.message =
        "nothing is shared here, each holds the factors of every expert: " + finding.message;
    if (!context.run().options.on("enable-moe-shared-loras")) return;
    Repair repair = repair_of(context.deployment(), context.subject());
    repair.engine = context.run().choice.label();
    finding.fix =
        "Start the server without --enable-moe-shared-loras and give it what this writes: " +
        repair.command();
    finding.remedy = Remedy::by_hand;
  });
}

}  // namespace

const Rule vlm022_shared_outer_flag = {
    .id = "VLM022",
    .name = "vllm-shared-outer-flag",
    .cause = &vllm::cause::shared_outer_flag,
    .engine = &engines::vllm,
    .what =
        "Stacked experts as experts.w1/w2/w3 without the server's switch for shared outer "
        "experts, or under a switch that does not fit them.",
    .why =
        "Without --enable-moe-shared-loras (since 2026-07-19) the names fail at the gate: "
        "\"expected target modules in {...} but received ['...experts.w1', ...]\". With it a "
        "stacked class needs --enable-mixed-moe-lora-format as well before 0.32, else a bare "
        "AssertionError; since 0.32 it takes shared outer factors alone under it; "
        "and factors of every expert where one is held keep expert 0 alone, without a word.",
    .fix = "Export every expert's own factors.",
    .remedy = Remedy::for_engine,
    .source = "vLLM PR 48884; Megatron-Bridge PR 5588 (expand_shared_outer)",
    .breaks = {.specimen = "qwen3_moe_shared_outer", .change = "serve it without the switch"},
    .check = check,
};

}  // namespace moelora
