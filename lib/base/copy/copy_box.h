#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace moelora {

// One loop of a strided copy; steps are in elements and may be zero or negative.
struct CopyAxis {
  int64_t count, src_step, dst_step;

  friend auto operator<=>(const CopyAxis&, const CopyAxis&) = default;
};

// Calls f(source offset, destination offset) for every index of `axes`.
template <class F>
void for_each_index(std::span<const CopyAxis> axes, int64_t src, int64_t dst, F&& f) {
  if (axes.empty()) return f(src, dst);
  const CopyAxis& axis = axes.front();
  for (int64_t i = 0; i < axis.count; ++i)
    for_each_index(axes.subspan(1), src + i * axis.src_step, dst + i * axis.dst_step, f);
}

// One box of a copy of many.
struct CopyBox {
  const std::byte* src;
  std::byte* dst;
  std::vector<CopyAxis> axes;
};

// Boxes of equal axes, copied together. Member m goes from src[m] to dst[m].
struct Bundle {
  enum class Kind : uint8_t {
    loose,  // nothing more is known
    split,  // src[m + 1] is one element after src[m]: neighbours are spread over the members
    join,   // dst[m + 1] is one element after dst[m]: neighbours come from the members
  };
  Kind kind = Kind::loose;
  std::vector<const std::byte*> src;
  std::vector<std::byte*> dst;
  // Steps in bytes, slowest destination step first, none of extent 1; neighbours that are one
  // straight line are joined.
  std::vector<CopyAxis> axes;
};

// All of `boxes`, bundled. Boxes of extent 0 are dropped.
std::vector<Bundle> fuse_boxes(int element_bytes, std::vector<CopyBox> boxes);

}  // namespace moelora
