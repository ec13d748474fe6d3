#pragma once

#include <cstdint>

#include "lib/io/file.h"

namespace moelora {

// What the last bytes of a zip archive say of its directory.
struct ZipEnd {
  uint64_t entries = 0;
  uint64_t begin = 0, bytes = 0;  // where the directory lies; it ends where the end records begin
};

inline constexpr uint64_t kMaxZipEntries = 1'000'000, kMaxZipDirectoryBytes = 100'000'000;

// The end record must be the last 22 bytes of the file: no comment, nothing after it. A zip64
// locator before it, and the zip64 record before that, must agree with it in every field that it
// can hold. One disk only. Throws Error.
ZipEnd read_zip_end(const File& file);

}  // namespace moelora
