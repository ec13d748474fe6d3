#pragma once

#include "lib/adapter/adapter.h"

namespace moelora {

// gate and up as one matrix, and back. Rows of a fused factor are [gate; up] or g0,u0,g1,u1.

// The rows of one half of a [2I, ..] matrix. half 0 is gate, 1 is up.
Tensor gate_up_half(const Tensor& fused, GateUpOrder order, int half);

// gate and up, both [I, ..], as one [2I, ..] matrix.
Tensor join_gate_up(const Tensor& gate, const Tensor& up, GateUpOrder order);

// gate_up factors become gate and up factors that share their A: exact, data movement only.
// Throws Error when the row order is not known (a stacked adapter read without its base model).
void split_gate_up(Adapter& adapter);

// gate and up factors become gate_up factors in `order`; existing gate_up factors are brought to
// that order. Where gate and up have the same A (by recipe, else by bytes) the rank stays; else A
// is stacked and B block-diagonal, of rank r_gate + r_up, with alpha chosen so that the scale is
// the same double. A missing half is zero. `threads` (0: all) compare the bytes. Throws Error where
// gate and up have different scales.
void fuse_gate_up(Adapter& adapter, GateUpOrder order, int threads = 0);

}  // namespace moelora
