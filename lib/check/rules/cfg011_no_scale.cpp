#include <fmt/core.h>

#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"

namespace moelora {
namespace {

struct Scales {
  size_t pairs = 0, zero = 0, negative = 0;

  void add(double value, size_t count = 1) {
    pairs += count;
    if (value == 0) zero += count;
    if (value < 0) negative += count;
  }
};

// Of every pair; where the file could not be read, of lora_alpha alone.
Scales scales_of(const Subject& subject) {
  Scales out;
  if (!subject.loaded) {
    out.add(subject.parsed_config->lora_alpha);
    return out;
  }
  for (const auto& [module, pair] : subject.loaded->adapter.dense) out.add(pair.scaling.value());
  for (const auto& [key, pair] : subject.loaded->adapter.experts)
    for (const Scaling& scaling : pair.scaling)
      out.add(scaling.value(), pair.a.parts.size() / pair.scaling.size());
  return out;
}

bool has_pattern_below(const AdapterConfig& config, double limit) {
  const Json* patterns = config.json.find("alpha_pattern");
  if (patterns == nullptr || !patterns->is(Json::Kind::object)) return false;
  return std::any_of(patterns->members().begin(), patterns->members().end(),
                     [&](const auto& entry) {
                       return entry.second.is_number() && entry.second.as_double() <= limit;
                     });
}

void report_zero(RuleContext& context, const Scales& scales) {
  const bool pattern = has_pattern_below(*context.subject().parsed_config, 0) &&
                       context.subject().parsed_config->lora_alpha != 0;
  const bool all = scales.zero == scales.pairs;
  context.report_config(
      pattern ? "alpha_pattern" : "lora_alpha",
      fmt::format("makes the scale of {} zero: {}",
                  all ? "every low-rank pair"
                      : fmt::format("{} of {}", scales.zero, pluralized(scales.pairs, "pair")),
                  all ? "this adapter is the base model" : "they change nothing"));
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.parsed_config) return;
  const Scales scales = scales_of(subject);
  if (scales.zero > 0) report_zero(context, scales);
  if (scales.negative == 0) return;
  const bool plain = subject.parsed_config->lora_alpha < 0;
  Finding& finding = context.report_config(
      plain ? "lora_alpha" : "alpha_pattern",
      fmt::format("makes the scale of {} of {} negative: they take away what was learnt",
                  scales.negative, pluralized(scales.pairs, "pair")));
  finding.severity = Severity::warning;
}

}  // namespace

const Rule cfg011_no_scale = {
    .id = "CFG011",
    .name = "no-scale",
    .what = "lora_alpha or an entry of alpha_pattern is 0, or negative (a warning).",
    .why =
        "Every delta is multiplied with alpha / r: with 0 PEFT and the servers compute the base "
        "model without a word. verl's model merger writes 0 because it does not know the value. No "
        "trainer writes a negative one.",
    .fix = "Set it to the value of the training (verl: actor_rollout_ref.model.lora_alpha).",
    .source = "verl model_merger; PEFT 0.21.2, run: delta exactly 0",
    .breaks = {.change = "set lora_alpha to 0", .config = {{"lora_alpha", "0"}}},
    .check = check,
};

}  // namespace moelora
