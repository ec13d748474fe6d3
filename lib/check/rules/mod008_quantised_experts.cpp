#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/rule_context.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!context.spec()->hub_mxfp4 || subject.experts.empty()) return;
  std::vector<std::string> names;
  for (const ExpertTensor& tensor : subject.experts) names.push_back(tensor.name);
  const bool is_served_by_others =
      !context.deployment().engines.empty() && chosen(context, engines::sglang).empty();
  Finding& finding = context.report(
      std::move(names), fmt::format("is of a routed expert, and the experts of this base model are "
                                    "MXFP4: SGLang {} no LoRA for them",
                                    is_served_by_others ? "would have" : "has"));
  set_severity_by_engine(finding, context, {&engines::sglang});
  const auto& headers = context.deployment().base_headers;
  if (headers != nullptr)
    finding.fix = context.fill(
        "lora-convert base {base} OUT --to fused writes the BF16 base model "
        "to serve.");
}

}  // namespace

const Rule mod008_quantised_experts = {
    .id = "MOD008",
    .name = "quantised-experts",
    .cause = &cause::quantised_experts,
    .needs_base = true,
    .what = "Expert LoRA on a base model whose experts are MXFP4.",
    .why =
        "SGLang: \"Mxfp4MoEMethod must implement get_triton_quant_info()\". vLLM serves it on "
        "its Triton and Marlin backends. PEFT cannot wrap packed experts at all.",
    .fix =
        "Serve a BF16 copy of the base model: lmsys/gpt-oss-20b-bf16 of openai/gpt-oss-20b, "
        "lmsys/gpt-oss-120b-bf16 of the larger one; lora-convert base makes one of a folder with "
        "the weights.",
    .source = "SGLang PRs 23218, 27930, 27932 (closed)",
    .breaks = {.specimen = "gpt_oss_stacked",
               .change = "say that the base model is MXFP4",
               .engine = "sglang",
               .base_config = {{"quantization_config", R"({"quant_method": "mxfp4"})"}}},
    .check = check,
};

}  // namespace moelora
