#pragma once

#include <cstdint>
#include <vector>

#include "lib/compare/bits/field.h"
#include "lib/compare/bits/loader.h"
#include "lib/compare/bits/probe_kernels.h"

namespace moelora::packed {

// Sums of a factor's elements times the entries of probe vectors, exact. They are taken in double,
// so many terms at a time as the spread of the elements' exponents proves free of rounding in any
// order: every partial sum is a multiple of the smallest element's last bit and has at most 53 bits
// above it. Where the proof allows too few terms (F32 elements, as a rule), they are taken in
// integers, exponent by exponent.

// Entries are odd and in -2047 .. 2047: 2048 values, so that one probe misses a difference of two
// matrices, looked at from both sides, with a chance of at most 2/2048, and both of 2^-20. Those of
// inputs and outputs have nothing to do with each other: x^T W x is that of W^T too.
int64_t probe_entry(Side side, int probe, int64_t index);
inline constexpr int kEntryBits = 11;

// A z = A x and w = B^T u of one expert, by rank and probe: [k * kProbes + probe].
struct ProbeSums {
  std::vector<Field> of;
  bool finite = true;      // false: an infinity or NaN, nothing can be said
  bool by_doubles = true;  // every sum so far was proved exact in double
};

// Adds what the x range of `part` that begins at `x0` contributes.
void add_probes(const Part& part, Side side, int64_t width, int64_t x0, ProbeSums& sums);

// How many elements times probe entries may be added in double so that the sum is proved exact, for
// elements whose magnitudes lie between `smallest` (not zero) and `largest`; 0: not even one.
int64_t exact_terms(DType dtype, double smallest, double largest);

}  // namespace moelora::packed
