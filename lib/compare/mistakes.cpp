#include "lib/compare/mistakes.h"

#include <map>
#include <utility>

#include "lib/adapter/gate_up.h"

namespace moelora {
namespace {

using Group = std::vector<Delta*>;  // the experts of one layer and projection, in order

std::map<std::pair<int, std::string>, Group> groups_of(Deltas& deltas) {
  std::map<std::pair<int, std::string>, Group> out;
  for (auto& [key, delta] : deltas)
    if (key.expert >= 0) out[{key.layer, key.module}].push_back(&delta);
  return out;
}

bool exchange_gate_up(Deltas& deltas) {
  Deltas out;
  bool any = false;
  for (auto& [key, delta] : deltas) {
    DeltaKey other = key;
    if (key.expert >= 0 && key.module == "gate_proj") other.module = "up_proj";
    if (key.expert >= 0 && key.module == "up_proj") other.module = "gate_proj";
    any = any || other != key;
    out[other] = delta;
  }
  deltas = std::move(out);
  return any;
}

// The rows of [gate; up] were taken for g0,u0,g1,u1 (`read_as` interleaved), or the reverse.
bool reorder_gate_up(Deltas& deltas, GateUpOrder read_as, GateUpOrder truly) {
  bool any = false;
  for (auto& [key, gate] : deltas) {
    if (key.expert < 0 || key.module != "gate_proj") continue;
    const auto up = deltas.find({"up_proj", key.layer, key.expert});
    if (up == deltas.end() || up->second.b.shape() != gate.b.shape()) return false;
    const Tensor rows = join_gate_up(gate.b, up->second.b, read_as);
    gate.b = gate_up_half(rows, truly, 0);
    up->second.b = gate_up_half(rows, truly, 1);
    any = true;
  }
  return any;
}

// The columns of a stacked lora_B [out, E*r] were read as k*E + e (`rank_major`) or as e*r + k.
bool reorder_columns(Group& group, bool read_rank_major) {
  std::vector<Tensor> parts;
  for (const Delta* delta : group) {
    if (delta->b.shape() != group[0]->b.shape() || delta->b.dtype() != group[0]->b.dtype())
      return false;
    parts.push_back(delta->b);
  }
  const auto experts = static_cast<int64_t>(parts.size());
  const int64_t out = parts[0].dim(0), r = parts[0].dim(1);
  const Tensor all = Tensor::stack(parts);  // [E, out, r]
  const Tensor flat = read_rank_major ? all.permute({1, 2, 0}).reshape({out, r * experts})
                                      : all.permute({1, 0, 2}).reshape({out, experts * r});
  for (int64_t e = 0; e < experts; ++e)
    group[static_cast<size_t>(e)]->b = read_rank_major
                                           ? flat.reshape({out, experts, r}).select(1, e)
                                           : flat.reshape({out, r, experts}).select(2, e);
  return true;
}

bool reorder_all_columns(Deltas& deltas, int64_t experts, bool read_rank_major) {
  bool any = false;
  for (auto& [where, group] : groups_of(deltas)) {
    if (static_cast<int64_t>(group.size()) != experts || !reorder_columns(group, read_rank_major))
      return false;
    any = true;
  }
  return any;
}

// A and B exchanged: what was saved as B A is (B A)^T of the other.
bool exchange_roles(Deltas& deltas) {
  bool any = false;
  for (auto& [key, delta] : deltas) {
    if (key.expert < 0) continue;
    const Tensor a = delta.a;
    delta.a = delta.b.transpose(0, 1);
    delta.b = a.transpose(0, 1);
    any = true;
  }
  return any;
}

}  // namespace

std::vector<Mistake> known_mistakes(int64_t experts) {
  using enum GateUpOrder;
  return {
      {"gate-up-exchanged", "gate and up are exchanged", exchange_gate_up},
      {"gate-up-halves", "rows of gate_up that lie in halves were taken for interleaved ones",
       [](Deltas& d) { return reorder_gate_up(d, interleaved, halves); }},
      {"gate-up-interleaved", "interleaved rows of gate_up were taken for halves",
       [](Deltas& d) { return reorder_gate_up(d, halves, interleaved); }},
      {"b-order-expert-major", "a stacked lora_B that is expert-major was read as rank-major",
       [=](Deltas& d) { return reorder_all_columns(d, experts, true); }},
      {"b-order-rank-major", "a stacked lora_B that is rank-major was read as expert-major",
       [=](Deltas& d) { return reorder_all_columns(d, experts, false); }},
      {"roles-exchanged", "lora_A and lora_B of the experts are exchanged (transposed roles)",
       exchange_roles},
  };
}

}  // namespace moelora
