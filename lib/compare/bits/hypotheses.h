#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "lib/compare/bits/factor_reader.h"
#include "lib/compare/mistakes.h"

namespace moelora::packed {

// What can happen to a factor on its way, as functions of the matrices alone. `found` is the packed
// factor, `expected` the source's in the packed type; each returns true when it explains every
// element of `found`.

// The data is right in the other orientation's order: reshaped where a transpose was needed.
bool is_reshaped(const Matrix& found, const Matrix& expected, Side side);

// Rows of fused gate and up, `half` 0 or 1 of `found`, mixed up: gate_up_interleaved or
// gate_up_halves, or cut by tensor parallelism from the joint axis.
std::optional<Mistake> interleaving(const Matrix& found, const Matrix& gate, const Matrix& up,
                                    int half);
bool is_joint_slice(const Matrix& found, const Matrix& gate, const Matrix& up, int half);

// The elements in their order in the file, but that many further; 0: no.
int64_t shift_of(const Matrix& found, const Matrix& expected, Side side);

// found = c * expected but for rounding; nullopt: no such c.
std::optional<double> factor_of(const Matrix& found, const Matrix& expected);

// How a cast from `source` (in its own type) went wrong where it did: truncated, overflow, flushed,
// dtype_bits.
std::optional<Mistake> bad_cast(const Matrix& found, const Matrix& source);

// The rank of `found` at which all ranks of `expected` lie; -1: nowhere.
int64_t rank_offset(const Matrix& found, const Matrix& expected);

// What an order of experts is: entries are {where, which expert of the source lies there}.
struct ExpertAt {
  int64_t at, holds;
};
Mistake order_of(const std::vector<ExpertAt>& experts, int64_t count, bool outer_side);

// Which mistake a factor `found / right` between the applied scale and the right one `scale` is.
Mistake scale_fault(double ratio, double scale, int64_t rank, int64_t packed_rank);

}  // namespace moelora::packed
