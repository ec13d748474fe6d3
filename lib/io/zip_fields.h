#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

namespace moelora {

// Reads the little-endian fields of a zip structure one after the other.
// REQUIRES: the structure was checked to be as long as what is read of it.
class ZipFields {
 public:
  explicit ZipFields(std::span<const std::byte> bytes) : bytes_(bytes) {}

  uint16_t u16() { return static_cast<uint16_t>(number(2)); }
  uint32_t u32() { return static_cast<uint32_t>(number(4)); }
  uint64_t u64() { return number(8); }
  void skip(size_t count) { bytes_ = bytes_.subspan(count); }

 private:
  uint64_t number(size_t width) {
    uint64_t out = 0;
    for (size_t i = width; i-- > 0;) out = out << 8 | static_cast<uint64_t>(bytes_[i]);
    skip(width);
    return out;
  }

  std::span<const std::byte> bytes_;
};

inline constexpr uint32_t kZipLocal = 0x04034B50, kZipCentral = 0x02014B50, kZipEnd = 0x06054B50,
                          kZipEnd64 = 0x06064B50, kZipLocator64 = 0x07064B50,
                          kZipDescriptor = 0x08074B50;
inline constexpr uint16_t kMax16 = 0xFFFF;
inline constexpr uint32_t kMax32 = 0xFFFFFFFF;  // "see the zip64 field"

}  // namespace moelora
