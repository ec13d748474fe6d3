#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/compare/bits/names.h"
#include "lib/model/model_spec.h"

namespace moelora::packed {

// Ways in which a packed adapter comes to say something else than its source.
enum class FaultKind : uint8_t {
  gate_up_halves,        // the gate and up halves of B exchanged
  gate_up_a_blocks,      // gate's and up's A exchanged
  gate_up_names,         // both: w1 and w3 the wrong way round
  up_uses_gate_a,        // up's own A is lost
  interleaving,          // gate and up rows interleaved where they must not be, or the reverse
  tp_slice,              // rows cut from the joint gate-up axis rather than from each half
  experts_rotated,       // expert e holds e + n
  experts_as_strings,    // experts in the order 0, 1, 10, 11, 2 ..
  experts_exchanged,     // two experts
  experts_permuted,      // another order
  scale_missing,         // alpha / r lost
  scale_twice,           // alpha / r applied twice
  scale_rslora,          // alpha / sqrt(r) for alpha / r, or the reverse
  scale_of_padded_rank,  // alpha / r with the rank of the padded factor
  scale_other,           // another constant
  a_reshaped,            // A reshaped where it must be transposed
  b_reshaped,            // B reshaped where it must be transposed
  b_order,               // columns of a stacked B in the other order
  padding,               // ranks that hold nothing are not zero
  rank_slot,             // a half's A and B in different ranks
  one_for_all,           // an outer factor (gate or up A, down B) collapsed to one expert's
  wrong_side_shared,     // an inner factor collapsed to one expert's
  averaged,              // one matrix for all experts that is none of theirs
  other_projection,      // w2 for w1 or w3, or the reverse
  sides_exchanged,       // A and B exchanged and transposed
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
std::string_view fault_name(FaultKind kind);  // "gate-up-halves"
std::string_view describe(FaultKind kind);    // a sentence

// One thing that is wrong, and everywhere it is.
struct Fault {
  FaultKind kind = FaultKind::unknown;
  std::vector<int> layers;              // sorted; empty for dense modules
  std::vector<Projection> projections;  // sorted
  std::vector<Side> sides;              // sorted
  std::vector<int64_t> experts;         // sorted, each once over all layers; empty for dense ones
  std::vector<std::string> modules;     // dense ones, sorted
  std::vector<std::string> tensors;     // of the packed adapter (of the source: missing), sorted
  int64_t pairs = 0;                    // how many pairs of A and B it concerns
  std::string first;                    // "layer 3, expert 7, gate_proj lora_B"
  std::string detail;                   // numbers: "alpha/r 2 became 4", element and values
  double delta_error = 0;               // largest ||dW' - dW|| / ||dW|| among them; 0: not known

  std::string text() const;  // one line: what, where, how much
};

}  // namespace moelora::packed
