#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/engine/fit/engine_fit.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {
namespace {

// The least value that the server takes and that is enough.
void check(RuleContext& context) {
  const auto& config = context.subject().parsed_config;
  const int64_t rank = config ? max_rank_for(*engines::vllm.fit, config->r) : 0;
  context.explain_plan([&](Finding& finding, const PlanEvent&) {
    if (rank > 0) finding.fix = fmt::format("Start the server with --max-lora-rank {}.", rank);
  });
}

}  // namespace

const Rule vlm007_rank_over_limit = {
    .id = "VLM007",
    .name = "vllm-rank-over-limit",
    .cause = &vllm::cause::rank_over_limit,
    .config_key = "r",
    .engine = &engines::vllm,
    .what = "The rank is above --max-lora-rank (16 unless given).",
    .why =
        "\"LoRA rank 32 is greater than max_lora_rank 16.\", the most frequent refusal of all. "
        "vLLM looks at r of the config; a tensor of a higher rank than r fails at the copy "
        "instead: \"The size of tensor a (8) must match the size of tensor b (12) at "
        "non-singleton dimension 1\".",
    .fix =
        "Start the server with --max-lora-rank at least r (1, 8, 16, 32, 64, 128, 256, 320, 512; "
        "with routed experts at most 128).",
    .source = "vLLM lora/peft_helper.py; issues 2847, ms-swift 4221, lm-eval 2988",
    .breaks = {.change = "serve rank 4 with --max-lora-rank 1", .options = {"max-lora-rank=1"}},
    .check = check,
};

}  // namespace moelora
