#include "lib/compare/bits/loader.h"

#include <algorithm>
#include <array>

#include "lib/base/error.h"
#include "lib/compare/bits/gather.h"

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

bool same_slab(const Slab& a, const Slab& b) {
  return a.tensor == b.tensor && a.offset == b.offset && a.e_step == b.e_step &&
         a.k_step == b.k_step && a.x_step == b.x_step && a.first == b.first && a.count == b.count &&
         a.rank == b.rank;
}

int64_t first_in(const Slab& slab, const Box& box) { return std::max(slab.first, box.e0); }

// Experts of the slab that lie in the box and are matrices of their own.
int64_t matrices(const Slab& slab, const Box& box) {
  const int64_t count = std::min(slab.first + slab.count, box.e1) - first_in(slab, box);
  return slab.e_step == 0 ? std::min<int64_t>(count, 1) : count;
}

}  // namespace

uint64_t box_bytes(const Table& table, const Factor& factor, const Box& box) {
  uint64_t out = 0;
  for (const Slab& slab : factor.slabs) {
    const int64_t count = matrices(slab, box);
    if (count <= 0) continue;
    const int bytes = dtype_bytes(table.tensors[slab.tensor].dtype);
    out += static_cast<uint64_t>(count * slab.rank * box.width() * bytes);
  }
  return out;
}

std::span<const Part> Loader::load(const Factor& factor, Side side, const Box& box) {
  if (side == last_side_ && box == last_box_ &&
      std::equal(factor.slabs.begin(), factor.slabs.end(), last_slabs_.begin(), last_slabs_.end(),
                 same_slab))
    return parts_;
  last_box_ = {0, 0, 0, 0};
  const uint64_t total = box_bytes(table_, factor, box);
  loaded_ += total;
  std::byte* out = arena_.take(total).data();
  parts_.assign(static_cast<size_t>(box.experts()), {});
  for (const Slab& slab : factor.slabs) {
    const int64_t count = matrices(slab, box);
    if (count <= 0) continue;
    load_slab(slab, side, box, out);
    const DType dtype = table_.tensors[slab.tensor].dtype;
    const int64_t bytes = slab.rank * box.width() * dtype_bytes(dtype);
    const int64_t end = std::min(slab.first + slab.count, box.e1);
    for (int64_t e = first_in(slab, box); e < end; ++e) {
      const int64_t at = slab.e_step == 0 ? 0 : e - first_in(slab, box);
      parts_[static_cast<size_t>(e - box.e0)] = {out + at * bytes, slab.rank, dtype};
    }
    out += count * bytes;
  }
  last_slabs_ = factor.slabs;
  last_box_ = box;
  last_side_ = side;
  return parts_;
}

void Loader::load_slab(const Slab& slab, Side side, const Box& box, std::byte* out) {
  const int64_t w = box.width(), r = slab.rank;
  std::array<Axis, 3> axes = {{{matrices(slab, box), slab.e_step, w * r},
                               {r, slab.k_step, side == Side::A ? w : 1},
                               {w, slab.x_step, side == Side::A ? 1 : r}}};
  std::sort(axes.begin(), axes.end(), [](const Axis& a, const Axis& b) {
    return (a.count == 1) != (b.count == 1) ? b.count == 1 : a.from > b.from;
  });
  size_t used = axes.size();
  while (used > 0 && axes[used - 1].count == 1) --used;
  const Stored& tensor = table_.tensors[slab.tensor];
  const int64_t offset = tensor.offset + slab.offset +
                         (first_in(slab, box) - slab.first) * slab.e_step + box.x0 * slab.x_step;
  fetch(tensor, std::span(axes).first(used), offset, out);
}

void Loader::fetch(const Stored& tensor, std::span<const Axis> axes, int64_t offset,
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

void Loader::fetch_spans(const Stored& tensor, std::span<const Axis> axes, int64_t offset,
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
