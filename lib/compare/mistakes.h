#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string_view>

namespace moelora {

struct Delta;
struct DeltaKey;

// What goes wrong when adapters are converted, packed, exported or trained: the one table of it.
// Texts and ids are in mistakes.cpp. NUM001 explains factors by it (lib/compare/bits/explain.h),
// `lora-diff weights` says up to which of them two adapters are the same (weight_distance.h). It
// includes no more than this, so that the packed check, which works everything out by itself,
// can name what it found.
enum class Mistake : uint8_t {
  gate_up_b_exchanged,
  gate_up_a_exchanged,
  gate_up_exchanged,
  up_uses_gate_a,
  gate_up_halves,
  gate_up_interleaved,
  tp_slice,
  experts_rotated,
  experts_as_strings,
  experts_exchanged,
  expert_permutation,
  scale_missing,
  scale_twice,
  scale_rslora,
  scale_of_padded_rank,
  scale,
  a_reshaped,
  b_reshaped,
  b_order_expert_major,
  b_order_rank_major,
  padding,
  rank_slot,
  one_for_all,
  wrong_side_shared,
  averaged,
  other_projection,
  roles_exchanged,
  dtype_bits,
  truncated,
  overflow,
  flushed,
  missing,
  left_zero,
  not_in_source,
  other_layer,
  shifted_data,
  rounding,
  few_elements,
  width,
  rank,
  unknown
};

struct MistakeRow {
  Mistake mistake;
  std::string_view id;    // "gate-up-exchanged": in reports, for programs
  std::string_view text;  // for people
  // Makes of deltas with the mistake what they would be without it, where that needs no look at the
  // values (else null); false where they cannot have it (a square that is none, an expert count
  // that differs). `experts` is E.
  using Undo = bool (*)(std::map<DeltaKey, Delta>& deltas, int64_t experts);
  Undo undo = nullptr;
};

// In the order of the enumeration; those with an undo, the likeliest first.
std::span<const MistakeRow> mistake_table();
const MistakeRow& row_of(Mistake mistake);

}  // namespace moelora
