#pragma once

#include <vector>

#include "lib/adapter/delta_pair.h"

namespace moelora {

// The singular values of two deltas of one place, and of their difference: largest first, as many
// as factors have rows. Values below some 1e-8 of the largest are rounding.
struct Spectrum {
  DeltaKey key;
  std::vector<double> a, b, apart;
};

// Reads the factors. Vectors are empty where values are not finite, and where the ranks together
// exceed kMostSpectrumRank. Throws Error where bytes cannot be read.
inline constexpr int64_t kMostSpectrumRank = 1024;
Spectrum spectrum_of(const DeltaKey& key, const Delta& a, const Delta& b);

}  // namespace moelora
