// PEFT's parameters hold all experts, and gate and up together: they have one scale, where numbered
// modules may have one each by alpha_pattern.

#include <fmt/format.h>

#include "lib/engine/fit/scale_folder.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

using Group = std::vector<std::map<ExpertKey, ExpertPair>::value_type*>;

// By layer: what becomes one parameter.
std::map<std::pair<int, bool>, Group> groups(Adapter& adapter) {
  std::map<std::pair<int, bool>, Group> out;
  for (auto& entry : adapter.experts)
    out[{entry.first.layer, entry.first.projection == Projection::down}].push_back(&entry);
  return out;
}

ScaleCounts counts_of(const Group& group, int64_t experts) {
  ScaleCounts out;
  for (const auto* entry : group)
    for (int64_t e = 0; e < experts; ++e)
      if (entry->second.a.has(e)) ++out[entry->second.scaling_of(e).value()];
  return out;
}

// One of the group's scalings that has this value: alpha and r as PEFT is to be told.
Scaling scaling_with(const Group& group, double value) {
  for (const auto* entry : group)
    for (const Scaling& scaling : entry->second.scaling)
      if (scaling.value() == value) return scaling;
  return group.front()->second.scaling.front();
}

void run(FitContext& context) {
  Adapter& adapter = context.adapter;
  if (!context.choice.layout->one_parameter) return;
  for (auto& [key, group] : groups(adapter)) {
    const ScaleCounts counts = counts_of(group, adapter.expert_count);
    if (counts.size() < 2) continue;
    const double scale = most_common(counts);
    const Scaling common = scaling_with(group, scale);
    ScaleFolder folder(scale);
    for (auto* entry : group) {
      const std::string name =
          fmt::format("{}.{}", adapter.stem(key.first), projection_name(entry->first.projection));
      folder.fold(name, entry->second, adapter.expert_count);
      entry->second.scaling = {common.with_rank(max_rank(entry->second))};
    }
    context.note(even_experts.name,
                 fmt::format("the experts of a parameter have one scale, {}: lora_B "
                             "scaled by {}",
                             scale, folder.text()));
  }
}

}  // namespace

const FitStep even_experts = {
    "even-experts", "peft",
    "experts of one parameter with scales of their own: the most common one, what differs from it "
    "goes into lora_B",
    run};

}  // namespace moelora::fit
