#pragma once

#include <cstddef>
#include <cstdint>

namespace moelora {

// The inner loops of strided_copy. All steps and offsets are in bytes here; `width` is the bytes of
// an element: 1, 2, 4 or 8.

// A transposition given by its rows: element (i, j) goes from src_rows[j] + src_offset + i * width
// to dst_rows[i] + dst_offset + j * width, for i < dst_count and j < src_count. Rows may lie
// anywhere: they may be the rows of one matrix, or one row in each of many tensors.
struct RowTable {
  const std::byte* const* src_rows;
  int64_t src_count;
  std::byte* const* dst_rows;
  int64_t dst_count;
};
void transpose_rows(int width, const RowTable& rows, int64_t src_offset, int64_t dst_offset);

// `count` runs of `bytes` contiguous bytes each.
void copy_runs(int64_t count, int64_t bytes, const std::byte* src, int64_t src_step, std::byte* dst,
               int64_t dst_step);

// `count` single elements.
void copy_elements(int width, int64_t count, const std::byte* src, int64_t src_step, std::byte* dst,
                   int64_t dst_step);

// A run that is not read again soon: past the caches where the processor can and `dst` and `bytes`
// are multiples of 16. end_streams() before another thread may look.
void stream_run(const std::byte* src, std::byte* dst, int64_t bytes);
void end_streams();

// One row whose elements go to two rows in turn, and back: gate and up columns interleaved.
// `count` elements a row of the pair.
void split_pairs(int width, int64_t count, const std::byte* src, std::byte* even, std::byte* odd);
void join_pairs(int width, int64_t count, const std::byte* even, const std::byte* odd,
                std::byte* dst);

}  // namespace moelora
