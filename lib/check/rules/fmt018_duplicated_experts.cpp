#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>
#include <vector>

#include "lib/adapter/adapter.h"
#include "lib/base/utf8.h"
#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/io/evaluate.h"

namespace moelora {
namespace {

// How many different factors the experts of a layer have, the most of any layer.
struct Copies {
  int64_t experts = 0, distinct = 0;
  uint64_t spare_bytes = 0;  // of all copies but the first

  bool any() const { return distinct < experts; }
  void add(const Copies& layer) {
    distinct = std::max(distinct, layer.distinct);
    experts = std::max(experts, layer.experts);
    spare_bytes += layer.spare_bytes;
  }
};

using FactorPlace = std::pair<Projection, Side>;
using CopiesByPlace = std::map<FactorPlace, Copies>;

const Factor& factor_of(const ExpertPair& pair, Side side) {
  return side == Side::A ? pair.a : pair.b;
}

// Bit by bit. A factor of zeros is an untrained expert and counts as different.
Copies count_copies(const Factor& factor) {
  std::vector<const Tensor*> parts;
  for (const Tensor& part : factor.parts)
    if (part.rank() != 0) parts.push_back(&part);
  if (factor.shared || parts.size() < 2) return {};
  const Tensor zero = Tensor::zeros(parts.front()->dtype(), parts.front()->shape());
  parts.push_back(&zero);
  const std::vector<std::string> digests = evaluate_tensors(parts, {}, {}, nullptr);
  parts.pop_back();
  Copies out{static_cast<int64_t>(parts.size())};
  std::set<std::string> seen{digests.back()};
  for (size_t i = 0; i < parts.size(); ++i)
    if (seen.insert(digests[i]).second || digests[i] == digests.back())
      ++out.distinct;
    else
      out.spare_bytes += parts[i]->bytes();
  return out;
}

CopiesByPlace equal_in_first_layer(const Adapter& adapter) {
  CopiesByPlace out;
  const int first = adapter.experts.begin()->first.layer;
  for (const auto& [key, pair] : adapter.experts)
    for (Side side : {Side::A, Side::B})
      if (key.layer == first && count_copies(factor_of(pair, side)).any())
        out[{key.projection, side}];
  return out;
}

// Empty where experts differ, as they do after training on their own tokens. Looks at the first
// layer's factors; those that are equal there are compared in all layers. Throws Error when bytes
// cannot be read.
CopiesByPlace find_copies(const Adapter& adapter) {
  if (adapter.experts.empty() || adapter.expert_count < 2) return {};
  CopiesByPlace out = equal_in_first_layer(adapter);
  for (const auto& [key, pair] : adapter.experts)
    for (Side side : {Side::A, Side::B})
      if (const auto at = out.find({key.projection, side}); at != out.end())
        at->second.add(count_copies(factor_of(pair, side)));
  std::erase_if(out, [](const auto& entry) { return !entry.second.any(); });
  return out;
}

std::string message(const CopiesByPlace& found) {
  std::string places;
  uint64_t spare_bytes = 0;
  for (const auto& [place, copies] : found) {
    places += fmt::format("{}{} lora_{} ({})", places.empty() ? "" : ", ",
                          projection_name(place.first), side_letter(place.second),
                          copies.distinct == 1 ? "one for all experts"
                                               : fmt::format("{} different ones", copies.distinct));
    spare_bytes += copies.spare_bytes;
  }
  return fmt::format(
      "experts have the same factors bit by bit: {}; once each they would be {} less", places,
      size_text(spare_bytes));
}

// All experts share exactly what a shared-outer adapter holds once.
bool is_shared_outer(const CopiesByPlace& found) {
  return std::all_of(found.begin(), found.end(), [](const auto& entry) {
    const auto& [projection, side] = entry.first;
    return (side == Side::B) == (projection == Projection::down) && entry.second.distinct == 1;
  });
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.loaded) return;
  const CopiesByPlace found = find_copies(subject.loaded->adapter);
  if (found.empty()) return;
  Finding& finding = context.report(message(found));
  if (!is_shared_outer(found))
    finding.fix =
        "Nothing to repair where training shared them (Megatron-Bridge share_expert_adapters: one "
        "adapter an expert-parallel rank); no layout stores groups once.";
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
    .fix =
        "Store them once (--to shared-outer), where gate and up have one lora_A and down one "
        "lora_B for all experts.",
    .remedy = Remedy::rewrite,
    .remedy_to = "shared-outer",
    .source = "tinker-cookbook PR 928; Megatron-Bridge share_expert_adapters, PR 5484",
    .breaks = {.change = "give every expert's gate and up the lora_A of the first's",
               .apply = break_it},
    .check = check,
};

}  // namespace moelora
