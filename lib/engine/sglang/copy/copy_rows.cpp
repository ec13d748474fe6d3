#include "lib/engine/sglang/copy/copy_rows.h"

#include <algorithm>

namespace moelora::sglang {
namespace {

// Walks rows of a staged tensor, block by block, and rows of the buffer, part by part.
struct RowCopier {
  WriteSink& sink;
  const std::vector<Block>& blocks;
  Write out;
  std::span<const Part> parts;
  std::span<const int64_t> whole;
  size_t block = 0, part = 0;  // where it is
  int64_t block_first = 0, part_row = 0;

  void copy(Span rows) {
    while (rows.count > 0) {
      const int64_t count = std::min({rows.count, seek_block(rows.first), part_left()});
      if (count <= 0) return;  // shapes agree, so this is never reached with rows left
      emit(rows.first, count);
      rows.first += count;
      rows.count -= count;
      part_row += count;
      out.row += count * out.row_step;
    }
  }

  // Finds the block that row `row` of the tensor is in; returns how many rows it has from there on.
  int64_t seek_block(int64_t row) {
    block = 0;
    block_first = 0;
    while (block < blocks.size() && row >= block_first + blocks[block].rows)
      block_first += blocks[block++].rows;
    return block < blocks.size() ? block_first + blocks[block].rows - row : 0;
  }

  int64_t part_left() {
    while (part < parts.size() && part_row == parts[part].rows) {
      ++part;
      part_row = 0;
    }
    return part < parts.size() ? parts[part].rows - part_row : 0;
  }

  void emit(int64_t row, int64_t count) {
    const Block& from = blocks[block];
    if (from.source == kZeros) return;
    out.rows = count;
    out.source = from.source;
    out.source_row = row - block_first;
    const Part& to = parts[part];
    out.in_place = is_at(row, to.index, to.first + part_row) &&
                   is_at(row + count - 1, to.index, to.first + part_row + count - 1);
    sink.write(out);
  }

  // Whether row `row` of the tensor is row `wanted` of part `index`, by what it was stacked of.
  bool is_at(int64_t row, int index, int64_t wanted) const {
    if (blocks.size() == whole.size())
      return static_cast<int>(block) == index && row - block_first == wanted;
    int64_t first = 0;
    for (int i = 0; i < index; ++i) first += whole[static_cast<size_t>(i)];
    return row - first == wanted;
  }
};

}  // namespace

void copy_rows(WriteSink& sink, const Sliced& sliced, const Write& at, std::span<const Part> parts,
               std::span<const int64_t> whole) {
  RowCopier all{sink, sliced.tensor->blocks, at, parts, whole};
  for (int i = 0; i < sliced.run_count; ++i) {
    const Span run = sliced.runs[static_cast<size_t>(i)];
    if (!sliced.interleaved) {
      all.copy(run);
      continue;
    }
    Write every_other = at;
    every_other.row += i;
    every_other.row_step = sliced.run_count;
    RowCopier{sink, sliced.tensor->blocks, every_other, parts.subspan(static_cast<size_t>(i), 1),
              whole}
        .copy(run);
  }
}

}  // namespace moelora::sglang
