#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {
namespace {

// What the adapter says of itself, in a layout where SGLang wants halves.
void check_marker(RuleContext& context) {
  const Subject& subject = context.subject();
  const bool fused = subject.layout != nullptr && subject.layout->id.ends_with("-fused");
  if (!fused || !subject.parsed_config || context.spec() == nullptr) return;
  if (subject.parsed_config->gate_up_order == "interleaved")
    context.report_config("moelora", "the rows of gate and up are marked as interleaved");
}

void check(RuleContext& context) {
  // No file is right there: the kernels would want its rows as no layout writes them.
  context.explain_plan([](Finding& finding, const PlanEvent&) {
    finding.fix = "Use SGLang 0.5.11 or newer; on this version, two ranks or more (--tp-size).";
  });
  check_marker(context);
}

}  // namespace

const Rule sgl017_interleaved_b = {
    .id = "SGL017",
    .name = "interleaved-b",
    .cause = &sglang::cause::interleaved_b,
    .engine = &engines::sglang,
    .what =
        "Rows of gate and up of a fused GPT-OSS lora_B are interleaved where SGLang wants halves, "
        "or the reverse.",
    .why =
        "SGLang takes a fused gate_up_proj.lora_B as gate rows, then up rows, and interleaves them "
        "itself; one that is interleaved as in the hub file is scrambled. 0.5.10 interleaves at tp "
        "2 or more only, and serves every GPT-OSS expert wrong on one GPU. Nothing says so.",
    .fix = "Use SGLang 0.5.11 or newer: 0.5.10 serves every GPT-OSS expert wrong on one GPU.",
    .remedy = Remedy::for_engine,
    .source =
        "SGLang lora/layers.py, slice_moe_lora_b_weights; PR 21570; lora/mem_pool.py of 0.5.10",
    .breaks = {.specimen = "gpt_oss_stacked",
               .change = "serve it with SGLang 0.5.10",
               .engine = "sglang@0.5.10"},
    .check = check,
};

}  // namespace moelora
