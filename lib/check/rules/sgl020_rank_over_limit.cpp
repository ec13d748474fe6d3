#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const auto& config = context.subject().parsed_config;
  context.explain_plan([&](Finding& finding, const PlanEvent&) {
    if (config)
      finding.fix =
          fmt::format("Start the server with --max-lora-rank {}, or without it.", config->r);
  });
}

}  // namespace

const Rule sgl020_rank_over_limit = {
    .id = "SGL020",
    .name = "rank-over-limit",
    .cause = &sglang::cause::rank_over_limit,
    .config_key = "r",
    .engine = &engines::sglang,
    .what = "r is above --max-lora-rank.",
    .why =
        "SGLang does not compare them when it starts: the first request ends the server with "
        "\"LoRA buffer shape torch.Size([2, 64]) does not match weight shape torch.Size([4, "
        "64]).\". Loaded later it is refused: \"LoRA adapter my-lora with rank 4 is incompatible "
        "with the current LoRA memory pool configuration.\". Before 0.5.11 experts of a rank below "
        "the server's are computed wrong, too.",
    .fix = "Start the server with --max-lora-rank at least r, or without it.",
    .source = "SGLang lora/mem_pool.py, can_support; PR 21864",
    .breaks = {.change = "serve rank 4 with --max-lora-rank 2", .options = {"max-lora-rank=2"}},
    .check = check,
};

}  // namespace moelora
