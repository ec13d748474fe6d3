#include "lib/engine/sglang/shared_outer.h"

#include <fmt/format.h>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

// What one tensor says; nullopt for nothing.
std::optional<bool> says_shared(const Staged& entry, const Features& features) {
  if (!entry.is_a() || !contains(entry.name, "gate_up_proj")) return std::nullopt;
  if (entry.rank() == 3) return entry.shape[0] == 1;
  if (features.detects_numbered && expert_of(entry.name)) return false;
  return std::nullopt;
}

void refuse(CpuAdapter& adapter, const Staged& entry) {
  adapter.raise(
      {&cause::mixed_shared_outer, stage::kDetect, "RuntimeError",
       fmt::format("Mixed shared-outer LoRA formats detected across loaded adapters (conflict in "
                   "adapter '{}'). All MoE adapters must either all use shared outer experts "
                   "(expert_dim=1) or all use per-expert weights.",
                   in_text(adapter.name)),
       "shared-outer and per-expert factors are given together"},
      entry.sources());
}

}  // namespace

bool detect_shared_outer(std::deque<CpuAdapter>& adapters, const Features& features) {
  std::optional<bool> shared;
  if (!features.detects_shared_outer) return false;
  for (CpuAdapter& adapter : adapters) {
    if (!adapter.alive) continue;
    for (LayerWeights& weights : adapter.layers)
      for (size_t i = 0; i < weights.count(); ++i) {
        const Staged* entry = weights.at(i);
        const auto says = entry != nullptr ? says_shared(*entry, features) : std::nullopt;
        if (!says) continue;
        if (!shared) shared = says;
        if (*says != *shared) return refuse(adapter, *entry), *shared;
      }
  }
  return shared.value_or(false);
}

}  // namespace moelora::sglang
