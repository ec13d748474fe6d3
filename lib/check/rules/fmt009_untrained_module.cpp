#include <fmt/core.h>

#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"

namespace moelora {
namespace {

constexpr double kUntrained = 1e-6;  // root mean square of a lora_B that training did not move

const ValueStats* stats_of(const Subject& subject, const NamedTensor* tensor) {
  if (tensor == nullptr) return nullptr;
  const auto at = subject.values.find(tensor->name);
  return at == subject.values.end() || !at->second.known || at->second.elements == 0 ? nullptr
                                                                                     : &at->second;
}

enum class State : uint8_t { unknown, trained, filler, untrained };

// A lora_B of zeros is how training starts. Zeros on both sides were written on purpose: a pair
// that a server demands beside a trained one. Equal values that are not zero (a standard deviation
// of 0) do change the model.
State state_of(const Subject& subject, const FactorPair& pair) {
  const ValueStats *a = stats_of(subject, subject.parts.a(pair)),
                   *b = stats_of(subject, subject.parts.b(pair));
  if (a == nullptr || b == nullptr) return State::unknown;
  if (subject.parts.any(pair).part >= TensorPart::embedding_a)  // PEFT starts these the other way
    return a->all_zero() && !b->all_zero() ? State::untrained : State::trained;
  if (a->all_zero() && b->all_zero()) return State::filler;
  if (b->nan + b->inf > 0) return State::unknown;  // FMT008
  return b->root_mean_square() < kUntrained ? State::untrained : State::trained;
}

bool is_embedding(const Subject& subject, const std::string& name) {
  return name.find("lora_embedding_A") != std::string::npos && subject.tensors.count(name) != 0;
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  std::vector<std::string> untrained;
  size_t checked = 0;
  bool all_zero = true;
  for (const FactorPair& pair : subject.parts.pairs) {
    const State state = state_of(subject, pair);
    checked += state == State::trained || state == State::untrained ? 1 : 0;
    if (state != State::untrained) continue;
    const bool embedding = subject.parts.any(pair).part >= TensorPart::embedding_a;
    const NamedTensor* start = embedding ? subject.parts.a(pair) : subject.parts.b(pair);
    all_zero = all_zero && stats_of(subject, start)->all_zero();
    untrained.push_back(start->name);
  }
  if (untrained.empty()) return;
  const size_t count = untrained.size();
  const bool embeddings = std::all_of(untrained.begin(), untrained.end(), [&](const auto& name) {
    return is_embedding(subject, name);
  });
  Finding& finding = context.report(
      std::move(untrained),
      fmt::format("is zero{}, as training starts: {} of {} change nothing{}",
                  all_zero ? "" : " or below 1e-6", count, pluralized(checked, "low-rank pair"),
                  count == checked ? ", this adapter is the base model" : ""));
  if (embeddings) finding.severity = Severity::information;
  if (count == checked) finding.severity = Severity::error;
}

void break_it(Specimen& specimen) {
  specimen.set("base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight",
               specimen.zeros({64, 4}));
}

}  // namespace

const Rule fmt009_untrained_module = {
    .id = "FMT009",
    .name = "untrained-module",
    .severity = Severity::warning,
    .needs_values = true,
    .what = "A lora_B is zero (or below a root mean square of 1e-6) beside a lora_A that is not.",
    .why =
        "PEFT starts with B = 0: no gradient reached this module, or the checkpoint is from "
        "before the first step. Experts that no token was routed to look like this too.",
    .fix =
        "Check that the module was trained: target_modules, frozen parameters, and for experts "
        "how many tokens they saw.",
    .source = "AdapterSentry INIT_ONLY; peft reset_lora_parameters",
    .breaks = {.change = "fill the lora_B of one q_proj with zeros", .apply = break_it},
    .check = check,
};

}  // namespace moelora
