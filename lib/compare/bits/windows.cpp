#include "lib/compare/bits/windows.h"

#include <algorithm>

namespace moelora::packed {
namespace {

struct Shape2 {
  uint64_t bytes = 0;
  int64_t experts = 0, width = 0;
  bool experts_inside = false;  // experts of one x side by side, so that cutting by them tears rows
  bool x_inside = false;        // x lies along rows of many: cutting by x tears them
};

void add(const Table& table, const Factor* factor, int64_t experts, Shape2& out) {
  if (factor == nullptr || factor->slabs.empty()) return;
  out.experts = std::max(out.experts, experts);
  out.width = std::max(out.width, factor->width);
  out.bytes += box_bytes(table, *factor, {0, experts, 0, factor->width});
  for (const Slab& slab : factor->slabs) {
    if (slab.count > 1 && slab.e_step != 0 && slab.e_step < slab.x_step) out.experts_inside = true;
    if (slab.rank > 1 && slab.x_step < slab.k_step) out.x_inside = true;
  }
}

}  // namespace

std::vector<Window> windows_of(const Table& packed, const Table& source, const Pairings& pairings,
                               size_t group, Side side, uint64_t bytes, uint64_t most) {
  Shape2 shape;
  for (const size_t i : pairings.groups[group]) {
    const Pairing& p = pairings.all[i];
    const int64_t experts = std::max(p.packed != nullptr ? p.packed->experts : 0,
                                     p.source != nullptr ? p.source->experts : 0);
    add(packed, p.packed_side(side), experts, shape);
    add(source, p.source_side(side), experts, shape);
  }
  if (shape.width == 0) return {};
  const bool by_x = shape.experts_inside || shape.experts == 1;
  const uint64_t target = by_x && shape.x_inside ? most : bytes;
  const int64_t extent = by_x ? shape.width : shape.experts;
  const auto wanted = static_cast<int64_t>(std::min<uint64_t>(shape.bytes / target, 1U << 20)) + 1;
  const int64_t step = std::max<int64_t>(1, (extent + wanted - 1) / wanted);
  std::vector<Window> out;
  for (int64_t at = 0; at < extent; at += step) {
    const int64_t end = std::min(at + step, extent);
    out.push_back(
        {group, side, by_x ? Box{0, shape.experts, at, end} : Box{at, end, 0, shape.width}});
  }
  return out;
}

}  // namespace moelora::packed
