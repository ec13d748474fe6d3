#include "lib/adapter/delta_pair.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/adapter/gate_up.h"

namespace moelora {
namespace {

bool has_fused(const Adapter& adapter) {
  return std::any_of(adapter.experts.begin(), adapter.experts.end(), [](const auto& entry) {
    return entry.first.projection == Projection::gate_up;
  });
}

void add_experts(const ExpertKey& key, const ExpertPair& pair, int64_t experts, Deltas& out) {
  for (int64_t e = 0; e < experts; ++e) {
    if (!pair.a.has(e) || !pair.b.has(e)) continue;
    out[{std::string(projection_name(key.projection)), key.layer, e}] = {
        pair.a.at(e), pair.b.at(e), pair.scaling_of(e).value()};
  }
}

}  // namespace

std::string to_string(const DeltaKey& key) {
  if (key.expert < 0) return key.module;
  return fmt::format("layer {} expert {} {}", key.layer, key.expert, key.module);
}

Deltas deltas_of(Adapter adapter) {
  if (has_fused(adapter) && adapter.gate_up_order) split_gate_up(adapter);
  Deltas out;
  for (const auto& [module, pair] : adapter.dense)
    out[{module, -1, -1}] = {pair.a, pair.b, pair.scaling.value()};
  for (const auto& [key, pair] : adapter.experts) add_experts(key, pair, adapter.expert_count, out);
  return out;
}

}  // namespace moelora
