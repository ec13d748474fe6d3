#pragma once

#include <span>

#include "lib/engine/sglang/copy/slice.h"
#include "lib/engine/sglang/copy/write.h"

namespace moelora::sglang {

// A run of a buffer's rows that belongs to one part (q, k or v; gate or up): `rows` of them, the
// first of which is row `first` of the part in the whole model.
struct Part {
  int index = 0;
  int64_t rows = 0, first = 0;
};

// Writes the rows of `sliced` to the buffer's, beginning at `at.row`: what `at` says of buffer,
// layer, side, expert and columns holds for all of them. `parts` are those of the buffer's rows
// from there on; `whole` the rows of each part in the whole model, by which a tensor that is fused
// already is told apart. Zeros are not written.
void copy_rows(WriteSink& sink, const Sliced& sliced, const Write& at, std::span<const Part> parts,
               std::span<const int64_t> whole);

// The same for interleaved rows: run i of `sliced` is part i, every other row.
void copy_interleaved(WriteSink& sink, const Sliced& sliced, const Write& at,
                      std::span<const Part> parts, std::span<const int64_t> whole);

}  // namespace moelora::sglang
