#include "lib/compare/bits/block_reader.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "lib/base/error.h"

namespace moelora::packed {
namespace {

constexpr int64_t kTile = 16;

template <class T>
T get(const std::byte* in, int64_t index) {
  T out;
  std::memcpy(&out, in + index * static_cast<int64_t>(sizeof(T)), sizeof(T));
  return out;
}

template <class T>
void put(std::byte* out, int64_t index, T value) {
  std::memcpy(out + index * static_cast<int64_t>(sizeof(T)), &value, sizeof(T));
}

// A tile of known size: rows of `in` are columns of `out`.
template <class T>
void transpose_tile(const std::byte* in, int64_t in_row, std::byte* out, int64_t out_row) {
  std::array<T, kTile * kTile> tile;
  for (int64_t r = 0; r < kTile; ++r)
    std::memcpy(&tile[static_cast<size_t>(r * kTile)],
                in + r * in_row * static_cast<int64_t>(sizeof(T)), kTile * sizeof(T));
  for (int64_t c = 0; c < kTile; ++c) {
    std::array<T, kTile> row;
    for (size_t r = 0; r < kTile; ++r) row[r] = tile[r * kTile + static_cast<size_t>(c)];
    std::memcpy(out + c * out_row * static_cast<int64_t>(sizeof(T)), row.data(), sizeof row);
  }
}

// `near` has the smallest step in `in`, `far` the smallest in `out`.
template <class T>
void transpose(const GatherAxis& near, const GatherAxis& far, const std::byte* in, std::byte* out) {
  const auto at = [](int64_t index) { return index * static_cast<int64_t>(sizeof(T)); };
  for (int64_t f = 0; f < far.count; f += kTile)
    for (int64_t n = 0; n < near.count; n += kTile) {
      const std::byte* from = in + at(f * far.from + n * near.from);
      std::byte* to = out + at(f * far.to + n * near.to);
      const int64_t rows = std::min(kTile, far.count - f), cols = std::min(kTile, near.count - n);
      if (rows == kTile && cols == kTile && near.from == 1 && far.to == 1) {
        transpose_tile<T>(from, far.from, to, near.to);
        continue;
      }
      for (int64_t c = 0; c < cols; ++c)
        for (int64_t r = 0; r < rows; ++r)
          put<T>(to, c * near.to + r * far.to, get<T>(from, c * near.from + r * far.from));
    }
}

template <class T>
void copy_run(const GatherAxis& axis, const std::byte* in, std::byte* out) {
  if (axis.from == 1 && axis.to == 1) {
    std::memcpy(out, in, static_cast<size_t>(axis.count) * sizeof(T));
    return;
  }
  for (int64_t i = 0; i < axis.count; ++i) put<T>(out, i * axis.to, get<T>(in, i * axis.from));
}

template <class T>
void gather_as(std::array<GatherAxis, 3> axes, const std::byte* in, std::byte* out) {
  // The innermost loop goes along the axis with the smallest step in `out`, the one around it along
  // that with the smallest step in `in`.
  std::sort(axes.begin(), axes.end(),
            [](const GatherAxis& a, const GatherAxis& b) { return a.to > b.to; });
  if (axes[0].from < axes[1].from) std::swap(axes[0], axes[1]);
  const bool same = axes[2].from <= axes[1].from;
  const auto at = [](int64_t index) { return index * static_cast<int64_t>(sizeof(T)); };
  for (int64_t i = 0; i < axes[0].count; ++i) {
    const std::byte* from = in + at(i * axes[0].from);
    std::byte* to = out + at(i * axes[0].to);
    if (!same) {
      transpose<T>(axes[1], axes[2], from, to);
      continue;
    }
    for (int64_t j = 0; j < axes[1].count; ++j)
      copy_run<T>(axes[2], from + at(j * axes[1].from), to + at(j * axes[1].to));
  }
}

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
  for (const auto& axis : axes) out += (axis.count - 1) * axis.from;
  return out;
}

// One run in the tensor that is the same run in the part. Axes: largest step first.
template <class Axes>
bool is_run(const Axes& axes) {
  int64_t step = 1;
  for (size_t i = axes.size(); i-- > 0; step *= axes[i].count)
    if (axes[i].from != step || axes[i].to != step) return false;
  return true;
}

bool same_block(const StridedBlock& a, const StridedBlock& b) {
  return a.tensor == b.tensor && a.offset == b.offset && a.e_step == b.e_step &&
         a.k_step == b.k_step && a.x_step == b.x_step && a.first == b.first && a.count == b.count &&
         a.rank == b.rank;
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

void gather(int element_bytes, std::span<const GatherAxis> axes, const std::byte* in,
            std::byte* out) {
  std::array<GatherAxis, 3> all = {{{1, 1, 1}, {1, 1, 1}, {1, 1, 1}}};
  constexpr int64_t kOutermost = int64_t{1} << 62;
  for (size_t i = 0; i < all.size(); ++i) {
    if (i < axes.size()) all[i] = axes[i];
    if (all[i].count == 1) all[i].from = all[i].to = kOutermost;
  }
  switch (element_bytes) {
    case 1:
      return gather_as<uint8_t>(all, in, out);
    case 2:
      return gather_as<uint16_t>(all, in, out);
    case 4:
      return gather_as<uint32_t>(all, in, out);
    default:
      return gather_as<uint64_t>(all, in, out);
  }
}

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

std::span<const Part> BlockReader::load(const Factor& factor, Side side, const Box& box) {
  if (side == last_side_ && box == last_box_ &&
      std::equal(factor.blocks.begin(), factor.blocks.end(), last_blocks_.begin(),
                 last_blocks_.end(), same_block))
    return parts_;
  last_box_ = {0, 0, 0, 0};
  const uint64_t total = box_bytes(table_, factor, box);
  loaded_ += total;
  std::byte* out = arena_.take(total).data();
  parts_.assign(static_cast<size_t>(box.experts()), {});
  for (const StridedBlock& block : factor.blocks) {
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
  last_blocks_ = factor.blocks;
  last_box_ = box;
  last_side_ = side;
  return parts_;
}

void BlockReader::load_block(const StridedBlock& block, Side side, const Box& box, std::byte* out) {
  const int64_t w = box.width(), r = block.rank;
  std::array<Axis, 3> axes = {{{matrices(block, box), block.e_step, w * r},
                               {r, block.k_step, side == Side::A ? w : 1},
                               {w, block.x_step, side == Side::A ? 1 : r}}};
  std::sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) {
    return (a.count == 1) != (b.count == 1) ? b.count == 1 : a.from > b.from;
  });
  size_t used = axes.size();
  while (used > 0 && axes[used - 1].count == 1) --used;
  const Stored& tensor = table_.tensors[block.tensor];
  const int64_t offset = tensor.offset + block.offset +
                         (first_in(block, box) - block.first) * block.e_step +
                         box.x0 * block.x_step;
  fetch(tensor, std::span(axes).first(used), offset, out);
}

void BlockReader::fetch(const Stored& tensor, std::span<const Axis> axes, int64_t offset,
                        std::byte* out) {
  if (is_run(axes)) {
    tensor.source->read(offset, elements(axes), out);
    return;
  }
  const int64_t bytes = dtype_bytes(tensor.dtype), scratch = kScratchBytes / bytes;
  const Axis& outer = axes[0];
  const auto inner = axes.subspan(1);
  const int64_t span = span_of(inner), held = elements(inner);
  const bool own_runs = is_run(inner) && held * bytes >= kLongRun;
  const bool dense = span <= 2 * held || span * bytes <= kShortSpan;
  if (!own_runs && dense && span <= scratch) {
    const bool gaps = outer.from > 2 * span && outer.from * bytes > kShortSpan;
    const int64_t together = gaps ? 1 : (scratch - span) / std::max<int64_t>(outer.from, 1) + 1;
    fetch_spans(tensor, axes, offset, together, out);
    return;
  }
  for (int64_t i = 0; i < outer.count; ++i)
    fetch(tensor, inner, offset + i * outer.from, out + i * outer.to * bytes);
}

void BlockReader::fetch_spans(const Stored& tensor, std::span<const Axis> axes, int64_t offset,
                              int64_t together, std::byte* out) {
  const int bytes = dtype_bytes(tensor.dtype);
  std::byte* scratch = scratch_.take(kScratchBytes).data();
  std::array<GatherAxis, 3> moved = {};
  for (size_t i = 0; i < axes.size(); ++i) moved[i] = {axes[i].count, axes[i].from, axes[i].to};
  for (int64_t i = 0; i < axes[0].count; i += together) {
    moved[0].count = std::min(together, axes[0].count - i);
    const auto chunk = std::span(moved).first(axes.size());
    tensor.source->read(offset + i * axes[0].from, span_of(chunk), scratch);
    gather(bytes, chunk, scratch, out + i * axes[0].to * bytes);
  }
}

}  // namespace moelora::packed
