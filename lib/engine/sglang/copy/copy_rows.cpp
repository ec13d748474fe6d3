#include "lib/engine/sglang/copy/copy_rows.h"

#include <algorithm>

namespace moelora::sglang {
namespace {

// Walks rows of a staged tensor, block by block, and rows of the buffer, part by part.
class RowCopier {
 public:
  RowCopier(WriteSink& sink, const Sliced& sliced, const Write& at, std::span<const Part> parts,
            std::span<const int64_t> whole)
      : sink_(sink), blocks_(sliced.tensor->blocks), out_(at), parts_(parts), whole_(whole) {}

  void copy(Span rows) {
    while (rows.count > 0) {
      const int64_t count = std::min({rows.count, seek_block(rows.first), part_left()});
      if (count <= 0) return;  // shapes agree, so this is never reached with rows left
      emit(rows.first, count);
      rows.first += count;
      rows.count -= count;
      advance(count);
    }
  }

 private:
  // Finds the block that row `row` of the tensor is in; returns how many rows it has from there on.
  int64_t seek_block(int64_t row) {
    block_ = 0;
    block_first_ = 0;
    while (block_ < blocks_.size() && row >= block_first_ + blocks_[block_].rows)
      block_first_ += blocks_[block_++].rows;
    return block_ < blocks_.size() ? block_first_ + blocks_[block_].rows - row : 0;
  }

  int64_t part_left() {
    while (part_ < parts_.size() && part_row_ == parts_[part_].rows) {
      ++part_;
      part_row_ = 0;
    }
    return part_ < parts_.size() ? parts_[part_].rows - part_row_ : 0;
  }

  void advance(int64_t count) {
    part_row_ += count;
    out_.row += count * out_.row_step;
  }

  void emit(int64_t row, int64_t count) {
    const Block& block = blocks_[block_];
    if (block.source == kZeros) return;
    out_.rows = count;
    out_.source = block.source;
    out_.source_row = row - block_first_;
    const Part& part = parts_[part_];
    out_.in_place = is_at(row, part.index, part.first + part_row_) &&
                    is_at(row + count - 1, part.index, part.first + part_row_ + count - 1);
    sink_.write(out_);
  }

  // Whether row `row` of the tensor is row `wanted` of part `part`, by what it was stacked of.
  bool is_at(int64_t row, int part, int64_t wanted) const {
    if (blocks_.size() == whole_.size())
      return static_cast<int>(block_) == part && row - block_first_ == wanted;
    int64_t first = 0;
    for (int i = 0; i < part; ++i) first += whole_[static_cast<size_t>(i)];
    return row - first == wanted;
  }

  WriteSink& sink_;
  const std::vector<Block>& blocks_;
  Write out_;
  std::span<const Part> parts_;
  std::span<const int64_t> whole_;
  size_t block_ = 0, part_ = 0;
  int64_t block_first_ = 0, part_row_ = 0;
};

}  // namespace

void copy_rows(WriteSink& sink, const Sliced& sliced, const Write& at, std::span<const Part> parts,
               std::span<const int64_t> whole) {
  RowCopier copier(sink, sliced, at, parts, whole);
  for (int i = 0; i < sliced.run_count; ++i) copier.copy(sliced.runs[static_cast<size_t>(i)]);
}

void copy_interleaved(WriteSink& sink, const Sliced& sliced, const Write& at,
                      std::span<const Part> parts, std::span<const int64_t> whole) {
  for (int i = 0; i < sliced.run_count; ++i) {
    Write every_other = at;
    every_other.row += i;
    every_other.row_step = sliced.run_count;
    RowCopier copier(sink, sliced, every_other, parts.subspan(static_cast<size_t>(i), 1), whole);
    copier.copy(sliced.runs[static_cast<size_t>(i)]);
  }
}

}  // namespace moelora::sglang
