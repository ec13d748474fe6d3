#include <fmt/core.h>

#include <string>
#include <utility>
#include <vector>

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

// What a pair adds, and which of its factors is zero.
struct PairState {
  State state;
  const NamedTensor* zero = nullptr;
  bool as_started = true;  // zero on the side that training starts with zeros
  bool exactly = true;
};

bool is_embedding(const Subject& subject, const FactorPair& pair) {
  return subject.parts.any(pair).part >= TensorPart::embedding_a;
}

// A lora_B of zeros is how training starts (of embeddings, lora_A). Zeros on both sides are written
// on purpose, where a server demands a pair beside a trained one. Equal values that are not zero (a
// standard deviation of 0) do change the model.
PairState state_of(const Subject& subject, const FactorPair& pair) {
  const NamedTensor *start = subject.parts.b(pair), *other = subject.parts.a(pair);
  if (is_embedding(subject, pair)) std::swap(start, other);
  const ValueStats *at_start = stats_of(subject, start), *beside = stats_of(subject, other);
  if (at_start == nullptr || beside == nullptr) return {State::unknown};
  if (at_start->nan + at_start->inf + beside->nan + beside->inf > 0) return {State::unknown};
  if (at_start->all_zero()) return {beside->all_zero() ? State::filler : State::untrained, start};
  if (beside->all_zero()) return {State::untrained, other, false};
  if (!is_embedding(subject, pair) && at_start->root_mean_square() < kUntrained)
    return {State::untrained, start, true, false};
  return {State::trained};
}

struct Untrained {
  std::vector<std::string> names;
  bool embeddings = true, as_started = true, exactly = true;

  void add(const PairState& pair, bool is_embedding) {
    names.push_back(pair.zero->name);
    embeddings = embeddings && is_embedding;
    as_started = as_started && pair.as_started;
    exactly = exactly && pair.exactly;
  }
};

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  Untrained untrained, fillers;
  size_t trained = 0;
  for (const FactorPair& pair : subject.parts.pairs) {
    const PairState found = state_of(subject, pair);
    trained += found.state == State::trained ? 1 : 0;
    if (found.state == State::untrained) untrained.add(found, is_embedding(subject, pair));
    if (found.state == State::filler) fillers.add(found, is_embedding(subject, pair));
  }
  if (trained + untrained.names.size() == 0) untrained = std::move(fillers);  // beside nothing
  if (untrained.names.empty()) return;
  const size_t count = untrained.names.size(), checked = trained + count;
  Finding& finding =
      context.report(std::move(untrained.names),
                     fmt::format("is zero{}{}: {} of {} change nothing{}",
                                 untrained.exactly ? "" : " or below 1e-6",
                                 untrained.as_started ? ", as training starts" : "", count,
                                 pluralized(checked, "low-rank pair"),
                                 trained == 0 ? ", this adapter is the base model" : ""));
  if (untrained.embeddings) finding.severity = Severity::information;
  if (trained == 0) finding.severity = Severity::error;
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
    .what =
        "A lora_B is zero (or below a root mean square of 1e-6) beside a lora_A that is not, or a "
        "lora_A is; or all of both are.",
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
