#pragma once

#include <cstdint>
#include <span>
#include <string_view>

#include "lib/engine/sglang/copy/slice.h"

namespace moelora::sglang {

// A box of a source tensor that a rank copies into a buffer: rows x columns values, row i of the
// box to row `row + i * row_step` of the buffer. Together the writes of a rank are all it holds of
// an adapter (pool_values.h); what no write covers is zero.
struct Write {
  std::string_view buffer;  // "gate_up_proj_moe", "embed_tokens"
  int layer = -1;           // -1: an embedding
  bool is_a = false;
  int64_t expert = -1;  // of the buffer, -1 for a dense one
  int64_t row = 0, row_step = 1, column = 0;
  int64_t rows = 0, columns = 0;

  int32_t source = 0;
  int64_t source_expert = -1;  // of a 3-D source, else -1
  int64_t source_row = 0, source_column = 0;

  bool scaled = false;   // multiplied by lora_alpha / r on the way: B of experts
  bool in_place = true;  // these rows are what belongs there

  friend bool operator==(const Write&, const Write&) = default;
};

class WriteSink {
 public:
  virtual ~WriteSink() = default;
  virtual void write(const Write& write) = 0;
};

// A run of a buffer's rows that belongs to one part (q, k or v; gate or up): `rows` of them, the
// first of which is row `first` of the part in the whole model.
struct Part {
  int index = 0;
  int64_t rows = 0, first = 0;
};

// Writes the rows of `sliced` to the buffer's, beginning at `at.row`: what `at` says of buffer,
// layer, side, expert and columns holds for all of them. `parts` are those of the buffer's rows
// from there on; `whole` the rows of each part in the whole model, by which a tensor that is fused
// already is recognized. Of interleaved rows run i of `sliced` is part i, every other row. Zeros
// are not written.
void copy_rows(WriteSink& sink, const Sliced& sliced, const Write& at, std::span<const Part> parts,
               std::span<const int64_t> whole);

}  // namespace moelora::sglang
