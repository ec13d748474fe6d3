#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <string_view>

namespace moelora {

struct Delta;
struct DeltaKey;

// What goes wrong when adapters are converted, packed, exported or trained: the one table of it.
// NUM001 explains factors by it (lib/compare/bits/explain.h), `lora-diff weights` says up to which
// of them two adapters are the same (same_up_to.h). It includes no more than this, so that the
// packed check, which shares no code with the converter, can name what it found.
enum class Mistake : uint8_t {
  gate_up_b_exchanged,   // the gate and up halves of B exchanged
  gate_up_a_exchanged,   // gate's and up's A exchanged
  gate_up_exchanged,     // both: w1 and w3 the wrong way round
  up_uses_gate_a,        // up's own A is lost
  gate_up_halves,        // gate and up rows in halves were taken apart as interleaved ones
  gate_up_interleaved,   // interleaved rows were taken for halves
  tp_slice,              // rows cut from the joint gate-up axis rather than from each half
  experts_rotated,       // expert e holds e + n
  experts_as_strings,    // experts in the order 0, 1, 10, 11, 2 ..
  experts_exchanged,     // two experts
  expert_permutation,    // another order
  scale_missing,         // alpha / r lost
  scale_twice,           // alpha / r applied twice
  scale_rslora,          // alpha / sqrt(r) for alpha / r, or the reverse
  scale_of_padded_rank,  // alpha / r with the rank of the padded factor
  scale,                 // another constant
  a_reshaped,            // A reshaped where it must be transposed
  b_reshaped,            // B reshaped where it must be transposed
  b_order_expert_major,  // columns e*r + k of a stacked B were read as k*E + e
  b_order_rank_major,    // columns k*E + e were read as e*r + k
  padding,               // ranks that hold nothing are not zero
  rank_slot,             // a half's A and B in different ranks
  one_for_all,           // an outer factor (gate or up A, down B) collapsed to one expert's
  wrong_side_shared,     // an inner factor collapsed to one expert's
  averaged,              // one matrix for all experts that is none of theirs
  other_projection,      // w2 for w1 or w3, or the reverse
  roles_exchanged,       // A and B exchanged and transposed
  dtype_bits,            // bits taken for another type's
  truncated,             // cast by cutting bits off
  overflow,              // finite values became infinite
  flushed,               // subnormal values became zero
  missing,               // a factor is not there
  left_zero,             // a factor is zero
  not_in_source,         // a factor that the source has not
  other_layer,           // another layer's factors
  shifted_data,          // the right data some elements off
  rounding,              // values are off by no more than rounding explains
  few_elements,          // single elements
  width,                 // another number of inputs or outputs
  rank,                  // another number of ranks
  unknown,               // nothing in the source explains it
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
