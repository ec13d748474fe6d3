#include "lib/base/strided_copy.h"

#include <cstring>
#include <vector>

namespace moelora {
namespace {

void copy(int width, std::span<const CopyAxis> axes, const std::byte* src, std::byte* dst) {
  if (axes.empty()) {
    std::memcpy(dst, src, static_cast<size_t>(width));
    return;
  }
  const CopyAxis& axis = axes.front();
  for (int64_t i = 0; i < axis.count; ++i)
    copy(width, axes.subspan(1), src + i * axis.src_step * width, dst + i * axis.dst_step * width);
}

}  // namespace

void strided_copy(int element_bytes, std::span<const CopyAxis> axes, const std::byte* src,
                  std::byte* dst) {
  copy(element_bytes, axes, src, dst);
}

}  // namespace moelora
