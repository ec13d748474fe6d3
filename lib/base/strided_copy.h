#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace moelora {

// One loop of a strided copy; steps are in elements and may be zero or negative.
struct CopyAxis {
  int64_t count, src_step, dst_step;
};

// dst[sum i_a * dst_step_a] = src[sum i_a * src_step_a] for every index of the box, any order of
// axes. Distinct indices write distinct elements. `element_bytes` is 1, 2, 4 or 8.
void strided_copy(int element_bytes, std::span<const CopyAxis> axes, const std::byte* src,
                  std::byte* dst);

}  // namespace moelora
