#pragma once

#include <cstdint>
#include <string_view>

namespace moelora::sglang {

// A box of a source tensor that a rank copies into a buffer: rows x columns values, row i of the
// box to row `row + i * row_step` of the buffer. Together the writes of a rank are all it holds of
// an adapter (fill.h); what no write covers is zero.
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
};

class WriteSink {
 public:
  virtual ~WriteSink() = default;
  virtual void write(const Write& write) = 0;
};

}  // namespace moelora::sglang
