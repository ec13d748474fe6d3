#pragma once

#include <cstdint>
#include <map>
#include <vector>

#include "lib/compare/bits/pairing.h"

namespace moelora::packed {

// L0: every element of the packed factors against what the source says they must hold.

// How a packed factor can be what the source says; several at once for a window of it. An infinity
// where the source is finite matches nothing: it is what rounding says, and the end of the adapter.
enum Match : uint8_t {
  kSame = 1,        // its elements, cast to the packed type where that is another
  kFoldTorch = 2,   // its elements, cast, times the ratio of the scales, FoldRounding::torch
  kFoldOnce = 4,    // the same, FoldRounding::once
  kFoldDirect = 8,  // its elements times the ratio, rounded once to the packed type, without a cast
  kZero = 16,       // nothing: the side that is there holds zeros only (+0 where it is the packed)
};
inline constexpr uint8_t kAnyFold = kFoldTorch | kFoldOnce | kFoldDirect;
inline constexpr uint8_t kAnyMatch = kSame | kAnyFold | kZero;

// An element that is not what it should be.
struct Difference {
  int64_t k = 0, x = 0;
  uint64_t found = 0, expected = 0;
  bool padding = false;  // a rank that holds nothing of the source's and is not +0
  int64_t count = 1;     // differing elements, counted up to kCountedDifferences
};
inline constexpr int64_t kCountedDifferences = 256;

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

  uint8_t of(size_t pairing, int64_t expert, Side side) const {
    return match[pairing][static_cast<size_t>(2 * expert) + static_cast<size_t>(side)];
  }
};

// Compares every element, all threads, each byte of the files read once where the layouts allow.
BitPass compare_bits(const Pairings& pairings, const PassOptions& options);

}  // namespace moelora::packed
