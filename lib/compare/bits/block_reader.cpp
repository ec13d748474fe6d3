#include "lib/compare/bits/block_reader.h"

#include <algorithm>
#include <array>

#include "lib/base/copy/strided_copy.h"

namespace moelora::packed {
namespace {

constexpr int64_t kScratchBytes = 256 << 10;
// A run worth a read of its own, and a gap not worth skipping.
constexpr int64_t kLongRun = 2 << 10, kShortSpan = 64 << 10;

template <class Axes>
int64_t elements(const Axes& axes) {
  int64_t out = 1;
  for (const auto& axis : axes) out *= axis.count;
  return out;
}

template <class Axes>
int64_t span_of(const Axes& axes) {
  int64_t out = 1;
  for (const auto& axis : axes) out += (axis.count - 1) * axis.src_step;
  return out;
}

// One run in the tensor that is the same run in the part. Axes: largest step first.
template <class Axes>
bool is_run(const Axes& axes) {
  int64_t step = 1;
  for (size_t i = axes.size(); i-- > 0; step *= axes[i].count)
    if (axes[i].src_step != step || axes[i].dst_step != step) return false;
  return true;
}

int64_t first_in(const StridedBlock& block, const Box& box) {
  return std::max(block.first, box.e0);
}

// Experts of the block that lie in the box and are matrices of their own.
int64_t matrices(const StridedBlock& block, const Box& box) {
  const int64_t count = std::min(block.first + block.count, box.e1) - first_in(block, box);
  return block.e_step == 0 ? std::min<int64_t>(count, 1) : count;
}

}  // namespace

uint64_t box_bytes(const Table& table, const Factor& factor, const Box& box) {
  uint64_t out = 0;
  for (const StridedBlock& block : factor.blocks) {
    const int64_t count = matrices(block, box);
    if (count <= 0) continue;
    const int bytes = dtype_bytes(table.tensors[block.tensor].dtype);
    out += static_cast<uint64_t>(count * block.rank * box.width() * bytes);
  }
  return out;
}

std::span<const Part> BlockReader::load(const Factor* factor, Side side, const Box& box) {
  if (factor == nullptr || factor->blocks.empty()) return {};
  if (side == last_side_ && box == last_box_ && factor->blocks == last_blocks_) return parts_;
  last_box_ = {0, 0, 0, 0};
  std::byte* out = arena_.take(box_bytes(table_, *factor, box)).data();
  parts_.assign(static_cast<size_t>(box.experts()), {});
  for (const StridedBlock& block : factor->blocks) {
    const int64_t count = matrices(block, box);
    if (count <= 0) continue;
    load_block(block, side, box, out);
    const DType dtype = table_.tensors[block.tensor].dtype;
    const int64_t bytes = block.rank * box.width() * dtype_bytes(dtype);
    const int64_t end = std::min(block.first + block.count, box.e1);
    for (int64_t e = first_in(block, box); e < end; ++e) {
      const int64_t at = block.e_step == 0 ? 0 : e - first_in(block, box);
      parts_[static_cast<size_t>(e - box.e0)] = {out + at * bytes, block.rank, dtype};
    }
    out += count * bytes;
  }
  last_blocks_ = factor->blocks;
  last_box_ = box;
  last_side_ = side;
  return parts_;
}

void BlockReader::load_block(const StridedBlock& block, Side side, const Box& box, std::byte* out) {
  const int64_t w = box.width(), r = block.rank;
  std::array<CopyAxis, 3> axes = {{{matrices(block, box), block.e_step, w * r},
                                   {r, block.k_step, side == Side::A ? w : 1},
                                   {w, block.x_step, side == Side::A ? 1 : r}}};
  std::sort(axes.begin(), axes.end(), [](const CopyAxis& a, const CopyAxis& b) {
    return (a.count == 1) != (b.count == 1) ? b.count == 1 : a.src_step > b.src_step;
  });
  size_t used = axes.size();
  while (used > 0 && axes[used - 1].count == 1) --used;
  const Stored& tensor = table_.tensors[block.tensor];
  const int64_t offset = tensor.offset + block.offset +
                         (first_in(block, box) - block.first) * block.e_step +
                         box.x0 * block.x_step;
  fetch(tensor, std::span(axes).first(used), offset, out);
}

void BlockReader::fetch(const Stored& tensor, std::span<const CopyAxis> axes, int64_t offset,
                        std::byte* out) {
  if (is_run(axes)) {
    tensor.source->read(offset, elements(axes), out);
    return;
  }
  const int64_t bytes = dtype_bytes(tensor.dtype), scratch = kScratchBytes / bytes;
  const CopyAxis& outer = axes[0];
  const auto inner = axes.subspan(1);
  const int64_t span = span_of(inner), held = elements(inner);
  const bool own_runs = is_run(inner) && held * bytes >= kLongRun;
  const bool dense = span <= 2 * held || span * bytes <= kShortSpan;
  if (!own_runs && dense && span <= scratch) {
    const bool gaps = outer.src_step > 2 * span && outer.src_step * bytes > kShortSpan;
    const int64_t together = gaps ? 1 : (scratch - span) / std::max<int64_t>(outer.src_step, 1) + 1;
    fetch_spans(tensor, axes, offset, together, out);
    return;
  }
  for (int64_t i = 0; i < outer.count; ++i)
    fetch(tensor, inner, offset + i * outer.src_step, out + i * outer.dst_step * bytes);
}

void BlockReader::fetch_spans(const Stored& tensor, std::span<const CopyAxis> axes, int64_t offset,
                              int64_t together, std::byte* out) {
  const int bytes = dtype_bytes(tensor.dtype);
  std::byte* scratch = scratch_.take(kScratchBytes).data();
  std::vector<CopyAxis> moved(axes.begin(), axes.end());
  for (int64_t i = 0; i < axes[0].count; i += together) {
    moved[0].count = std::min(together, axes[0].count - i);
    const auto chunk = std::span(moved).first(axes.size());
    tensor.source->read(offset + i * axes[0].src_step, span_of(chunk), scratch);
    strided_copy(bytes, chunk, scratch, out + i * axes[0].dst_step * bytes);
  }
}

}  // namespace moelora::packed
