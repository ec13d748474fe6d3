#pragma once

#include <cstdint>
#include <vector>

#include "lib/base/tensor.h"

namespace moelora {

// How large the rows of a stacked lora_A [E*r, in] and the columns of its lora_B [out, E*r] are.
struct StackedProfile {
  int64_t experts = 0, rank = 0;
  std::vector<double> row_squares, column_squares;  // sums of squares: of row e*r + k, of column c
  std::vector<char> column_is_zero;                 // every value is exactly 0
  std::vector<char> row_is_initial;  // every |value| <= 1/sqrt(in): kaiming_uniform_(a=sqrt(5))
  bool finite = true;                // no NaN, no Inf, nothing above 2^63

  int64_t count() const { return experts * rank; }
};

// Streams both tensors once, in blocks that stay in the second-level cache. REQUIRES: E divides
// A's rows, and B has as many columns. Throws Error when bytes cannot be read, or for a type that
// is no float.
StackedProfile profile_stacked_pair(const Tensor& a, const Tensor& b, int64_t experts);

}  // namespace moelora
