#include <fmt/core.h>

#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/rule_context.h"
#include "lib/engine/peft/peft.h"

namespace moelora {
namespace {

std::string target_of(const AdapterConfig& config, std::string_view word, std::string_view other) {
  for (const std::string& target : config.target_modules) {
    const std::string_view leaf = leaf_of(target);
    if (leaf == word || leaf == other) return std::string(leaf);
  }
  return "";
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!chosen(context, engines::peft).empty()) return;  // PFT006
  if (!subject.parsed_config || !is_fused_in_memory(*context.spec()) ||
      !context.spec()->peft.converts || !context.spec()->gated)
    return;
  const std::string gate = target_of(*subject.parsed_config, "gate_proj", "w1");
  const std::string up = target_of(*subject.parsed_config, "up_proj", "w3");
  if (gate.empty() == up.empty()) return;
  const std::string missing =
      gate.empty() ? (up == "w3" ? "w1" : "gate_proj") : (gate == "w1" ? "w3" : "up_proj");
  Finding& finding = context.report_config(
      "target_modules",
      fmt::format("names {} and not {}; transformers 5 holds both as one gate_up_proj",
                  gate.empty() ? up : gate, missing));
  set_severity_by_engine(finding, context, {&engines::peft});
}

}  // namespace

const Rule cfg008_half_of_gate_up = {
    .id = "CFG008",
    .name = "half-of-gate-up",
    .needs_base = true,
    .what =
        "target_modules names the gate and not the up of experts that transformers 5 fuses, or "
        "the reverse.",
    .why =
        "PEFT 0.19 and newer rewrites such targets for the fused parameter and refuses half of "
        "it: \"Cannot convert PEFT target(s) up_proj without also targeting gate_proj because "
        "they are fused into gate_up_proj.\"",
    .fix =
        "Train gate and up together; servers take the adapter as it is, PEFT below 0.19 on "
        "transformers 4 too.",
    .source = "peft utils/transformers_weight_conversion.py; trl issues 5428 and 5429",
    .breaks =
        {.change = "remove every up_proj, from target_modules too",
         .config = {{"target_modules",
                     R"(["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "down_proj"])"}},
         .apply = [](Specimen& specimen) { remove_tensors(specimen, "up_proj"); }},
    .check = check,
};

}  // namespace moelora
