#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "lib/numeric/packed/field.h"
#include "lib/numeric/packed/loader.h"

namespace moelora::packed {

// Sums of a factor's elements times the entries of probe vectors, exact. A row's sum is taken in
// double where the spread of the elements' exponents proves that no rounding can happen in any
// order: every partial sum is a multiple of the smallest element's last bit and has at most 53 bits
// above it. Where the proof fails (F32 elements, as a rule), it is taken in the field.

inline constexpr int kProbes = 4;
// Entries are odd and in -63 .. 63: 64 values, so that one probe misses a difference of two
// matrices, looked at from both sides, with a chance of at most 2/64, and all four of 2^-20.
// Those of inputs and outputs have nothing to do with each other: x^T W x is that of W^T too.
int64_t probe_entry(Side side, int probe, int64_t index);

// A z = A x and w = B^T u of one expert, by rank and probe: [k * kProbes + probe].
struct ProbeSums {
  std::vector<Field> of;
  bool finite = true;      // false: an infinity or NaN, nothing can be said
  bool by_doubles = true;  // every sum so far was proved exact in double
};

// Adds what the x range of `part` that begins at `x0` contributes.
void add_probes(const Part& part, Side side, int64_t width, int64_t x0, ProbeSums& sums);

// Whether a sum of `terms` elements times probe entries is exact in double, for elements whose
// magnitudes lie between `smallest` (not zero) and `largest`.
bool exact_in_double(DType dtype, double smallest, double largest, int64_t terms);

}  // namespace moelora::packed
