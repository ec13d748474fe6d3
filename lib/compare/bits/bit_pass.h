#pragma once

#include <cstdint>
#include <map>
#include <tuple>
#include <vector>

#include "lib/compare/bits/bits.h"
#include "lib/compare/bits/pairing.h"
#include "lib/compare/bits/windows.h"

namespace moelora::packed {

struct PassOptions {
  int threads = 0;
  uint64_t window = 4 << 20;                    // bytes read at once, of both adapters
  uint64_t most() const { return 8 * window; }  // where the two layouts cross
};

// One expert's factor that is not by its bits what the source says.
struct FactorId {
  size_t pairing;
  int64_t expert;
  Side side;
  friend auto operator<=>(const FactorId&, const FactorId&) = default;
};

struct BitPass {
  // What each factor may be, over all its windows: [pairing][2 * expert + side].
  std::vector<std::vector<uint8_t>> match;
  std::map<FactorId, Difference> differences;
  uint64_t elements = 0, bytes = 0;  // compared; read, of both adapters

  uint8_t of(size_t pairing, int64_t expert, Side side) const {
    return match[pairing][static_cast<size_t>(2 * expert) + static_cast<size_t>(side)];
  }
};

// Compares every element, all threads, each byte of the files read once where the layouts allow.
BitPass compare_bits(const Table& packed, const Table& source, const Pairings& pairings,
                     const PassOptions& options);

int64_t experts_of(const Pairing& pairing);

// scale of the source / scale of the packed; 1 where both are there and equal.
double scale_ratio(const Pairing& pairing, int64_t expert);

}  // namespace moelora::packed
