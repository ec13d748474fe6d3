#include "lib/compare/mistakes.h"

#include <array>
#include <cstddef>
#include <string>
#include <utility>
#include <vector>

#include "lib/adapter/delta_pair.h"
#include "lib/adapter/gate_up.h"

namespace moelora {
namespace {

// ---- undoing, by moving factors ----

using Group = std::vector<Delta*>;  // the experts of one layer and projection, in order

std::map<std::pair<int, std::string>, Group> groups_of(Deltas& deltas) {
  std::map<std::pair<int, std::string>, Group> out;
  for (auto& [key, delta] : deltas)
    if (key.expert >= 0) out[{key.layer, key.module}].push_back(&delta);
  return out;
}

bool exchange_gate_up(Deltas& deltas, int64_t) {
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

bool from_halves(Deltas& deltas, int64_t) {
  return reorder_gate_up(deltas, GateUpOrder::interleaved, GateUpOrder::halves);
}

bool from_interleaved(Deltas& deltas, int64_t) {
  return reorder_gate_up(deltas, GateUpOrder::halves, GateUpOrder::interleaved);
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

bool from_expert_major(Deltas& deltas, int64_t experts) {
  return reorder_all_columns(deltas, experts, true);
}

bool from_rank_major(Deltas& deltas, int64_t experts) {
  return reorder_all_columns(deltas, experts, false);
}

// A and B exchanged: what was saved as B A is (B A)^T of the other.
bool exchange_roles(Deltas& deltas, int64_t) {
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

// ---- the table ----

constexpr std::array kRows = {
    MistakeRow{Mistake::gate_up_b_exchanged, "gate-up-b-exchanged",
               "the gate and up halves of lora_B are exchanged"},
    MistakeRow{Mistake::gate_up_a_exchanged, "gate-up-a-exchanged",
               "gate's and up's lora_A are exchanged"},
    MistakeRow{Mistake::gate_up_exchanged, "gate-up-exchanged",
               "gate and up are exchanged, A and B alike: w1 and w3 are named the wrong way round",
               exchange_gate_up},
    MistakeRow{Mistake::up_uses_gate_a, "up-uses-gate-a", "up has gate's lora_A, its own is lost"},
    MistakeRow{Mistake::gate_up_halves, "gate-up-halves",
               "rows of gate_up that lie in halves were taken for interleaved ones", from_halves},
    MistakeRow{Mistake::gate_up_interleaved, "gate-up-interleaved",
               "interleaved rows of gate_up were taken for halves", from_interleaved},
    MistakeRow{Mistake::tp_slice, "tp-slice",
               "rows were cut from the joint gate-up axis rather than from each half"},
    MistakeRow{Mistake::experts_rotated, "experts-rotated", "the experts are rotated"},
    MistakeRow{Mistake::experts_as_strings, "experts-as-strings",
               "the experts are in the order of their numbers as text: 0, 1, 10, 11, .. 2"},
    MistakeRow{Mistake::experts_exchanged, "experts-exchanged", "two experts are exchanged"},
    MistakeRow{Mistake::expert_permutation, "expert-permutation",
               "the experts are in another order"},
    MistakeRow{Mistake::scale_missing, "scale-missing", "the scale alpha/r is lost"},
    MistakeRow{Mistake::scale_twice, "scale-twice", "the scale alpha/r is applied twice"},
    MistakeRow{Mistake::scale_rslora, "scale-rslora",
               "alpha/r and alpha/sqrt(r) (rsLoRA) are mistaken for each other"},
    MistakeRow{Mistake::scale_of_padded_rank, "scale-of-padded-rank",
               "the scale is alpha over the padded rank rather than the adapter's"},
    MistakeRow{Mistake::scale, "scale", "the delta is scaled by a constant"},
    MistakeRow{Mistake::a_reshaped, "a-reshaped",
               "lora_A was reshaped where it must be transposed"},
    MistakeRow{Mistake::b_reshaped, "b-reshaped",
               "lora_B was reshaped where it must be transposed"},
    MistakeRow{Mistake::b_order_expert_major, "b-order-expert-major",
               "a stacked lora_B that is expert-major was read as rank-major", from_expert_major},
    MistakeRow{Mistake::b_order_rank_major, "b-order-rank-major",
               "a stacked lora_B that is rank-major was read as expert-major", from_rank_major},
    MistakeRow{Mistake::padding, "padding", "ranks that hold nothing of the source's are not zero"},
    MistakeRow{
        Mistake::rank_slot, "rank-slot",
        "a half begins at another rank than its other side: the second slice lies at r rather than "
        "at the padded rank"},
    MistakeRow{
        Mistake::one_for_all, "one-for-all",
        "every expert has one expert's factor: per-expert factors were taken for a shared outer "
        "one"},
    MistakeRow{Mistake::wrong_side_shared, "wrong-side-shared",
               "every expert has one expert's factor on the inner side: the wrong side is shared"},
    MistakeRow{Mistake::averaged, "averaged",
               "every expert has one matrix that is no expert's of the source: averaged?"},
    MistakeRow{Mistake::other_projection, "other-projection",
               "another projection's factor: w2 taken for w1 or w3"},
    MistakeRow{Mistake::roles_exchanged, "roles-exchanged",
               "lora_A and lora_B are exchanged and transposed", exchange_roles},
    MistakeRow{Mistake::dtype_bits, "dtype-bits", "bits of one type were taken for another's"},
    MistakeRow{Mistake::truncated, "truncated",
               "values were cast by cutting bits off, not by rounding"},
    MistakeRow{Mistake::overflow, "overflow", "finite values became infinite"},
    MistakeRow{Mistake::flushed, "flushed", "subnormal values became zero"},
    MistakeRow{Mistake::missing, "missing", "factors are not there"},
    MistakeRow{Mistake::left_zero, "left-zero", "factors are zero"},
    MistakeRow{Mistake::not_in_source, "not-in-source", "factors that the source has not"},
    MistakeRow{Mistake::other_layer, "other-layer", "another layer's factors"},
    MistakeRow{Mistake::shifted_data, "shifted-data", "the right values, some elements off"},
    MistakeRow{Mistake::rounding, "rounding", "values differ by no more than rounding explains"},
    MistakeRow{Mistake::few_elements, "few-elements", "single elements differ"},
    MistakeRow{Mistake::width, "width", "another number of inputs or outputs"},
    MistakeRow{Mistake::rank, "rank", "another rank"},
    MistakeRow{Mistake::unknown, "unknown", "values that nothing in the source explains"},
};

constexpr bool in_order() {
  for (size_t i = 0; i < kRows.size(); ++i)
    if (static_cast<size_t>(kRows[i].mistake) != i) return false;
  return kRows.size() == static_cast<size_t>(Mistake::unknown) + 1;
}
static_assert(in_order());

}  // namespace

std::span<const MistakeRow> mistake_table() { return kRows; }

const MistakeRow& row_of(Mistake mistake) { return kRows[static_cast<size_t>(mistake)]; }

}  // namespace moelora
