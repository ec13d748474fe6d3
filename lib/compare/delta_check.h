#pragma once

#include <cstdint>
#include <vector>

#include "lib/numeric/moe_forward.h"

namespace moelora {

// What an implementation added to one projection of one expert with the factors of one adapter (the
// packed one), against what the factors of another (its source) give in double for the very same
// input: s B (A x), of gate and up from the implementation's x_p, of down from its h. The base
// weights count in neither, however the two adapters are factored.
//
// The bound, element by element, from the packed factors, with K the row's length, r the rank,
// u = 2^-23 (truncating tensor cores allowed for), U = 2^-8 and z = A x:
//   |s| |B| ((K u + c) |A| |x|) + (r u + U [s A x is BF16] + c) |s| |B| |z|
// c is the rounding of the packed factors' type (BF16 2^-8) where that type or the scale is not the
// source's, and 0 where they are the same; an F16's smallest steps are added. What is within the
// bound only because of c is the source's if the whole delta is off by at most kRoundedDelta.
struct DeltaError {
  Projection projection;
  int64_t expert;
  double worst;     // the largest |found - exact| / bound; at most kBeyond
  double relative;  // ||found - exact|| / ||exact||; 1 where the source adds nothing
  bool within;      // rounding explains it
};
inline constexpr double kRoundedDelta = 1e-2, kBeyond = 1e9;

// Both adapters over the same base; empty factors add nothing.
struct DeltaCheck {
  const MoeLayer& layer;
  const MoeWeights &packed, &source;
  const Routing& routing;
  StageRounding rounding;  // of the implementation; bf16: its factors too are BF16
  int threads = 0;
};

// Every expert that was chosen, by projection (gate, up, down), then expert. `found` with its
// deltas apart; projections without any LoRA are left out.
std::vector<DeltaError> check_deltas(const DeltaCheck& check, const MoeStages<float>& found);

}  // namespace moelora
