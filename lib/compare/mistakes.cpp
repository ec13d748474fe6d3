#include "lib/compare/mistakes.h"

#include <cstddef>
#include <iterator>
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
template <GateUpOrder read_as, GateUpOrder truly>
bool reorder_gate_up(Deltas& deltas, int64_t) {
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

template <bool read_rank_major>
bool reorder_all_columns(Deltas& deltas, int64_t experts) {
  bool any = false;
  for (auto& [where, group] : groups_of(deltas)) {
    if (static_cast<int64_t>(group.size()) != experts || !reorder_columns(group, read_rank_major))
      return false;
    any = true;
  }
  return any;
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

using enum Mistake;

constexpr MistakeRow kRows[] = {
    {gate_up_b_exchanged, "gate-up-b-exchanged", "the gate and up halves of lora_B are exchanged"},
    {gate_up_a_exchanged, "gate-up-a-exchanged", "gate's and up's lora_A are exchanged"},
    {gate_up_exchanged, "gate-up-exchanged",
     "gate and up are exchanged, A and B alike: w1 and w3 are named the wrong way round",
     exchange_gate_up},
    {up_uses_gate_a, "up-uses-gate-a", "up has gate's lora_A, its own is lost"},
    {gate_up_halves, "gate-up-halves",
     "rows of gate_up that lie in halves were taken for interleaved ones",
     reorder_gate_up<GateUpOrder::interleaved, GateUpOrder::halves>},
    {gate_up_interleaved, "gate-up-interleaved",
     "interleaved rows of gate_up were taken for halves",
     reorder_gate_up<GateUpOrder::halves, GateUpOrder::interleaved>},
    {tp_slice, "tp-slice", "rows were cut from the joint gate-up axis rather than from each half"},
    {experts_rotated, "experts-rotated", "the experts are rotated"},
    {experts_as_strings, "experts-as-strings",
     "the experts are in the order of their numbers as text: 0, 1, 10, 11, .. 2"},
    {experts_exchanged, "experts-exchanged", "two experts are exchanged"},
    {expert_permutation, "expert-permutation", "the experts are in another order"},
    {scale_missing, "scale-missing", "the scale alpha/r is lost"},
    {scale_twice, "scale-twice", "the scale alpha/r is applied twice"},
    {scale_rslora, "scale-rslora",
     "alpha/r and alpha/sqrt(r) (rsLoRA) are mistaken for each other"},
    {scale_of_padded_rank, "scale-of-padded-rank",
     "the scale is alpha over the padded rank rather than the adapter's"},
    {scale, "scale", "the delta is scaled by a constant"},
    {a_reshaped, "a-reshaped", "lora_A was reshaped where it must be transposed"},
    {b_reshaped, "b-reshaped", "lora_B was reshaped where it must be transposed"},
    {b_order_expert_major, "b-order-expert-major",
     "a stacked lora_B that is expert-major was read as rank-major", reorder_all_columns<true>},
    {b_order_rank_major, "b-order-rank-major",
     "a stacked lora_B that is rank-major was read as expert-major", reorder_all_columns<false>},
    {padding, "padding", "ranks that hold nothing of the source's are not zero"},
    {rank_slot, "rank-slot",
     "a half begins at another rank than its other side: the second slice lies at r rather than "
     "at the padded rank"},
    {one_for_all, "one-for-all",
     "every expert has one expert's factor: per-expert factors were taken for a shared outer "
     "one"},
    {wrong_side_shared, "wrong-side-shared",
     "every expert has one expert's factor on the inner side: the wrong side is shared"},
    {averaged, "averaged",
     "every expert has the same matrix, which no expert of the source has: averaged?"},
    {other_projection, "other-projection", "another projection's factor: w2 taken for w1 or w3"},
    {roles_exchanged, "roles-exchanged", "lora_A and lora_B are exchanged and transposed",
     exchange_roles},
    {dtype_bits, "dtype-bits", "bits of one type were taken for another's"},
    {truncated, "truncated", "values were cast by cutting bits off, not by rounding"},
    {overflow, "overflow", "finite values became infinite"},
    {flushed, "flushed", "subnormal values became zero"},
    {missing, "missing", "factors are not there"},
    {left_zero, "left-zero", "factors are zero"},
    {not_in_source, "not-in-source", "factors that the source does not have"},
    {other_layer, "other-layer", "another layer's factors"},
    {shifted_data, "shifted-data", "the right values, some elements off"},
    {rounding, "rounding", "values differ by no more than rounding explains"},
    {few_elements, "few-elements", "single elements differ"},
    {width, "width", "another number of inputs or outputs"},
    {rank, "rank", "another rank"},
    {unknown, "unknown", "values that nothing in the source explains"},
};

constexpr bool in_order() {
  for (size_t i = 0; i < std::size(kRows); ++i)
    if (static_cast<size_t>(kRows[i].mistake) != i) return false;
  return std::size(kRows) == static_cast<size_t>(unknown) + 1;
}
static_assert(in_order());

}  // namespace

std::span<const MistakeRow> mistake_table() { return kRows; }

const MistakeRow& row_of(Mistake mistake) { return kRows[static_cast<size_t>(mistake)]; }

}  // namespace moelora
