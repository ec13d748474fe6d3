#pragma once

#include <cstdint>

namespace moelora {

// Bytes that this process has read of all Files so far: what there is to show of a stage that
// nobody knows the length of.
uint64_t bytes_read();

}  // namespace moelora
