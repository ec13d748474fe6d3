#pragma once

#include <array>
#include <cstdint>
#include <span>

namespace moelora::test {

// zlib's CRC-32 of `bytes`, going on from `crc`.
inline uint32_t crc32(std::span<const std::byte> bytes, uint32_t crc) {
  static const std::array<uint32_t, 256> kTable = [] {
    std::array<uint32_t, 256> table{};
    for (uint32_t i = 0; i < 256; ++i) {
      uint32_t c = i;
      for (int bit = 0; bit < 8; ++bit) c = (c & 1) != 0 ? 0xEDB88320u ^ (c >> 1) : c >> 1;
      table[i] = c;
    }
    return table;
  }();
  crc = ~crc;
  for (std::byte byte : bytes)
    crc = kTable[(crc ^ static_cast<uint32_t>(byte)) & 0xFF] ^ (crc >> 8);
  return ~crc;
}

}  // namespace moelora::test
