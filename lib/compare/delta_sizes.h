#pragma once

#include <vector>

#include "lib/compare/weight_distance.h"

namespace moelora {

// What one delta is, from the Gram matrices of its factors. Not finite where a value is not.
struct DeltaSize {
  DeltaKey key;
  int64_t rank = 0;           // rows of lora_A
  double norm = 0;            // Frobenius, its scale included
  double effective_rank = 0;  // as in Distance
};

// Of every delta, by key. Streams as weight_distances does. Throws Error where bytes cannot be
// read.
std::vector<DeltaSize> delta_sizes(const Deltas& deltas, const DistanceOptions& options);

}  // namespace moelora
