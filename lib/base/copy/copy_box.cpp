#include "lib/base/copy/copy_box.h"

#include <algorithm>
#include <cstdlib>

namespace moelora {
namespace {

using Boxes = std::vector<CopyBox>;
using Range = Boxes::iterator;

Bundle bundle(Bundle::Kind kind, Range first, Range last) {
  Bundle out;
  out.kind = last - first > 1 ? kind : Bundle::Kind::loose;
  out.axes = first->axes;
  for (Range at = first; at != last; ++at) {
    out.src.push_back(at->src);
    out.dst.push_back(at->dst);
  }
  return out;
}

// Cuts boxes of equal axes, sorted by `address`, into chains; the rest is kept in `loose`.
template <class Address>
void take_chains(Bundle::Kind kind, int64_t step, Boxes boxes, Address address, Boxes& loose,
                 std::vector<Bundle>& out) {
  std::sort(boxes.begin(), boxes.end(),
            [&](const CopyBox& a, const CopyBox& b) { return address(a) < address(b); });
  for (Range first = boxes.begin(); first != boxes.end();) {
    Range last = first + 1;
    while (last != boxes.end() && address(*last) - address(*(last - 1)) == step) ++last;
    if (last - first > 1)
      out.push_back(bundle(kind, first, last));
    else
      loose.push_back(std::move(*first));
    first = last;
  }
}

void bundle_equal(int element_bytes, Boxes boxes, std::vector<Bundle>& out) {
  Boxes unsplit, loose;
  take_chains(
      Bundle::Kind::split, element_bytes, std::move(boxes), [](const CopyBox& b) { return b.src; },
      unsplit, out);
  take_chains(
      Bundle::Kind::join, element_bytes, std::move(unsplit), [](const CopyBox& b) { return b.dst; },
      loose, out);
  if (!loose.empty()) out.push_back(bundle(Bundle::Kind::loose, loose.begin(), loose.end()));
}

// The same loops with steps in bytes, slowest destination step first, without axes of extent 1,
// neighbours that are one straight line joined. An empty box (extent 0) gives one axis of extent 0.
std::vector<CopyAxis> simplified(int element_bytes, std::vector<CopyAxis> axes) {
  for (const CopyAxis& axis : axes)
    if (axis.count == 0) return {{0, 0, 0}};
  std::erase_if(axes, [](const CopyAxis& axis) { return axis.count == 1; });
  std::stable_sort(axes.begin(), axes.end(), [](const CopyAxis& a, const CopyAxis& b) {
    return std::abs(a.dst_step) > std::abs(b.dst_step);
  });
  std::vector<CopyAxis> out;
  for (CopyAxis axis : axes) {
    axis.src_step *= element_bytes;
    axis.dst_step *= element_bytes;
    const bool straight = !out.empty() && out.back().src_step == axis.src_step * axis.count &&
                          out.back().dst_step == axis.dst_step * axis.count;
    if (straight)
      out.back() = {out.back().count * axis.count, axis.src_step, axis.dst_step};
    else
      out.push_back(axis);
  }
  return out;
}

}  // namespace

std::vector<Bundle> fuse_boxes(int element_bytes, std::vector<CopyBox> boxes) {
  for (CopyBox& box : boxes) box.axes = simplified(element_bytes, std::move(box.axes));
  std::erase_if(boxes,
                [](const CopyBox& box) { return !box.axes.empty() && box.axes[0].count == 0; });
  std::stable_sort(boxes.begin(), boxes.end(),
                   [](const CopyBox& a, const CopyBox& b) { return a.axes < b.axes; });
  std::vector<Bundle> out;
  for (Range first = boxes.begin(); first != boxes.end();) {
    const Range last = std::find_if(first, boxes.end(),
                                    [&](const CopyBox& box) { return box.axes != first->axes; });
    bundle_equal(element_bytes,
                 Boxes(std::make_move_iterator(first), std::make_move_iterator(last)), out);
    first = last;
  }
  return out;
}

}  // namespace moelora
