#include <fmt/core.h>

#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/stacked_file.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const auto file = stacked_file(context.subject());
  if (!file || !file->reading || file->reading->roles != Roles::swapped) return;
  const StackedPair& pair = file->pairs.front();
  Finding& finding = context.report(
      names_of(*file),
      fmt::format("lora_A {} is on the output of {}, lora_B {} on its input",
                  to_string(pair.a->tensor.shape()), projection_name(file->reading->projection[0]),
                  to_string(pair.b->tensor.shape())));
  set_severity_by_engine(finding, context, {&engines::vllm, &engines::sglang});
}

// The pairs as PEFT 0.18 wrote them.
void break_it(Specimen& specimen) {
  for (int layer : {0, 1}) {
    const std::string experts = fmt::format("model.layers.{}.mlp.experts", layer);
    set_pair(specimen, experts + ".base_layer", {32, 48}, {64, 32});
    set_pair(specimen, experts, {32, 64}, {24, 32});
  }
}

}  // namespace

const Rule fmt013_reversed_roles = {
    .id = "FMT013",
    .name = "reversed-roles",
    .what = "A stacked pair has lora_A on the output of the experts and lora_B on the input.",
    .why =
        "PEFT up to 0.18 saved [E, out, in] experts so (and 0.19.0 those of gpt-oss). vLLM "
        "expects the natural form and does not look: \"The size of tensor a (512) must match "
        "the size of tensor b (2048) at non-singleton dimension 2\" at tensor parallel size 1, "
        "nonsense without a word above it.",
    .fix = "Save the adapter again with PEFT 0.19.1 or newer.",
    .remedy = Remedy::rewrite,
    .remedy_to = "peft-params",
    .source = "peft PR 3165; vLLM PR 52198, 41384; oracle peft_params_swapped_roles",
    .breaks = {.specimen = "qwen3_moe_stacked_params",
               .change = "exchange the shapes of lora_A and lora_B, as PEFT 0.18 wrote them",
               .engine = "vllm",
               .config = {{"auto_mapping", ""}},
               .apply = break_it},
    .implies = {"VLM001"},
    .check = check,
};

}  // namespace moelora
