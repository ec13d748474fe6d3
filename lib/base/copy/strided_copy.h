#pragma once

#include <cstddef>
#include <span>
#include <vector>

#include "lib/base/copy/copy_box.h"

namespace moelora {

// dst[sum i_a * dst_step_a] = src[sum i_a * src_step_a] for every index of the box, any order of
// axes. Distinct indices write distinct elements. `element_bytes` is 1, 2, 4 or 8.
void strided_copy(int element_bytes, std::span<const CopyAxis> axes, const std::byte* src,
                  std::byte* dst);

// Copies all boxes; no two write the same element, and no source byte is written. Boxes of equal
// axes whose sources (or destinations) lie one element apart are copied together: each alone would
// touch every cache line of the source (one expert's columns of a stacked lora_B), together they
// are a transposition with a table of destinations (or of sources).
void copy_boxes(int element_bytes, std::vector<CopyBox> boxes);

}  // namespace moelora
