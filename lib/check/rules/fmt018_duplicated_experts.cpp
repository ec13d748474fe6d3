#include <fmt/format.h>

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "lib/adapter/adapter.h"
#include "lib/base/utf8.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/io/evaluate.h"

namespace moelora {
namespace {

// Factors that several experts of a layer have in common, bit by bit.
struct EqualExperts {
  struct Side {
    Projection projection;
    moelora::Side side;
    int64_t distinct;  // factors a layer, of E experts: the most of any layer
  };
  std::vector<Side> sides;   // with fewer factors than experts
  uint64_t spare_bytes = 0;  // of all copies but the first

  // All experts share exactly what a shared-outer adapter holds once.
  bool is_shared_outer() const;
};

const Factor& factor_of(const ExpertPair& pair, Side side) {
  return side == Side::A ? pair.a : pair.b;
}

std::vector<std::string> digests(const std::vector<const Tensor*>& tensors) {
  return evaluate_tensors(tensors, {}, {}, nullptr);
}

struct Copies {
  int64_t experts = 0, distinct = 0;
  uint64_t spare_bytes = 0;
};

// How many different factors the experts of a layer have. One of zeros is an untrained expert
// and counts as different.
Copies count_copies(const Factor& factor) {
  std::vector<const Tensor*> parts;
  for (const Tensor& part : factor.parts)
    if (part.rank() != 0) parts.push_back(&part);
  if (factor.shared || parts.size() < 2) return {};
  std::vector<const Tensor*> all = parts;
  const Tensor zero = Tensor::zeros(parts.front()->dtype(), parts.front()->shape());
  all.push_back(&zero);
  const std::vector<std::string> of = digests(all);
  Copies out;
  std::set<std::string> seen{of.back()};
  for (size_t i = 0; i < parts.size(); ++i) {
    ++out.experts;
    if (seen.insert(of[i]).second || of[i] == of.back())
      ++out.distinct;
    else
      out.spare_bytes += parts[i]->bytes();
  }
  return out;
}

struct FactorPlace {
  Projection projection;
  Side side;
  friend auto operator<=>(const FactorPlace&, const FactorPlace&) = default;
};

std::set<FactorPlace> equal_in_first_layer(const Adapter& adapter) {
  std::set<FactorPlace> out;
  const int first = adapter.experts.begin()->first.layer;
  for (const auto& [key, pair] : adapter.experts)
    for (Side side : {Side::A, Side::B}) {
      if (key.layer != first) break;
      const Copies copies = count_copies(factor_of(pair, side));
      if (copies.distinct < copies.experts) out.insert({key.projection, side});
    }
  return out;
}

bool EqualExperts::is_shared_outer() const {
  return !sides.empty() && std::all_of(sides.begin(), sides.end(), [](const Side& s) {
    const bool outer =
        s.projection == Projection::down ? s.side == moelora::Side::B : s.side == moelora::Side::A;
    return outer && s.distinct == 1;
  });
}

// nullopt where experts differ, as they do after training on their own tokens. Looks at the first
// layer's factors; those that are equal there are compared in all layers. Experts whose factor is
// zero are left out: they were not trained. Throws Error when bytes cannot be read.
std::optional<EqualExperts> find_equal_experts(const Adapter& adapter) {
  if (adapter.experts.empty() || adapter.expert_count < 2) return std::nullopt;
  std::map<FactorPlace, Copies> found;
  for (const FactorPlace& place : equal_in_first_layer(adapter)) found[place];
  for (const auto& [key, pair] : adapter.experts)
    for (Side side : {Side::A, Side::B}) {
      const auto at = found.find({key.projection, side});
      if (at == found.end()) continue;
      const Copies here = count_copies(factor_of(pair, side));
      at->second.distinct = std::max(at->second.distinct, here.distinct);
      at->second.experts = std::max(at->second.experts, here.experts);
      at->second.spare_bytes += here.spare_bytes;
    }
  EqualExperts out;
  for (const auto& [place, copies] : found) {
    if (copies.distinct >= copies.experts) continue;
    out.sides.push_back({place.projection, place.side, copies.distinct});
    out.spare_bytes += copies.spare_bytes;
  }
  if (out.sides.empty()) return std::nullopt;
  return out;
}

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
             : "Nothing to repair where training shared them (Megatron-Bridge "
               "share_expert_adapters: "
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
