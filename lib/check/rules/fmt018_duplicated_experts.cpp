#include <fmt/format.h>

#include "lib/base/utf8.h"
#include "lib/check/equal_experts.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"

namespace moelora {
namespace {

std::string side_name(const EqualExperts::Side& side) {
  return fmt::format("{} lora_{}", projection_name(side.projection), side_letter(side.side));
}

std::string message(const EqualExperts& equal) {
  std::string sides;
  for (const EqualExperts::Side& side : equal.sides)
    sides += fmt::format("{}{} ({})", sides.empty() ? "" : ", ", side_name(side),
                         side.distinct == 1 ? "one for all experts"
                                            : fmt::format("{} different ones", side.distinct));
  return fmt::format(
      "experts have the same factors bit by bit: {}; once each they would be {} less", sides,
      size_text(equal.spare_bytes));
}

std::string fix(const EqualExperts& equal) {
  return equal.is_shared_outer()
             ? "lora-convert adapter {adapter} OUT --to shared-outer stores them once."
             : "Nothing to mend where training shared them (Megatron-Bridge share_expert_adapters: "
               "one adapter an expert-parallel rank); no layout stores groups once.";
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.loaded) return;
  const auto equal = find_equal_experts(subject.loaded->adapter);
  if (!equal) return;
  context.report(message(*equal)).fix = context.fill(fix(*equal));
}

// The lora_A of gate and up of all experts as of the first: an expanded shared outer factor.
void break_it(Specimen& specimen) {
  const TensorMap before = specimen.tensors();
  for (const auto& [name, tensor] : before) {
    const size_t at = name.find(".mlp.experts.");
    if (at == std::string::npos || name.find("lora_A") == std::string::npos ||
        name.find("down_proj") != std::string::npos)
      continue;
    const size_t dot = name.find('.', at + 13);
    specimen.set(name, before.at(name.substr(0, at + 13) + "0" + name.substr(dot)));
  }
}

}  // namespace

extern const Rule fmt018_duplicated_experts;
const Rule fmt018_duplicated_experts = {
    .id = "FMT018",
    .name = "duplicated-experts",
    .severity = Severity::information,
    .needs_values = true,
    .what = "Experts have byte-identical factors, in all layers.",
    .why =
        "Either a shared outer factor was expanded to one copy an expert (which SGLang serves "
        "in up to three times the memory), or the trainer shared one adapter between the "
        "experts of a rank. The adapter is sound; it is larger than it need be.",
    .fix = "lora-convert adapter {adapter} OUT --to shared-outer",
    .source = "tinker-cookbook PR 928; Megatron-Bridge share_expert_adapters, PR 5484",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "give every expert's gate and up the lora_A of the first's",
               .engine = "",
               .apply = break_it},
    .check = check,
};

}  // namespace moelora
