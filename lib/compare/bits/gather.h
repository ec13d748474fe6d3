#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace moelora::packed {

// out[sum i*to] = in[sum i*from] over at most three axes; elements of 1, 2, 4 or 8 bytes.
struct GatherAxis {
  int64_t count, from, to;
};
void gather(int element_bytes, std::span<const GatherAxis> axes, const std::byte* in,
            std::byte* out);

}  // namespace moelora::packed
