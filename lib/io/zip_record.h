#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lib/io/file.h"
#include "lib/io/zip_directory.h"
#include "lib/io/zip_fields.h"

namespace moelora {

// A record while it is checked. `zip.begin` is known once its local header was read.
struct ZipRecord {
  ZipEntry zip;
  uint16_t flags = 0;
  uint64_t header = 0;  // where the local header lies
};

// What a local header and a directory entry both say, side by side in both.
struct ZipHeader {
  static constexpr uint16_t kDescriptorFollows = 1 << 3, kUtf8 = 1 << 11;

  uint16_t flags = 0, method = 0;
  uint32_t crc = 0, stored = 0, size = 0;  // stored: the size after compression
  uint16_t name_bytes = 0, extra_bytes = 0;

  static ZipHeader read(ZipFields& fields);
};

// Reads the extra fields of a header: a zip64 field with exactly the numbers `wide`, absent when
// there are none, and torch's padding. Nothing else may be there.
void read_zip_extra(const File& file, const std::string& name, std::span<const std::byte> extra,
                    const std::vector<uint64_t*>& wide);

// The record's local header, data and data descriptor fill the file from record.header to `end`,
// and both say what the directory says. Sets record.zip.begin.
void check_zip_local(const File& file, ZipRecord& record, uint64_t end);

// Throws Error at PATH, or at "PATH: NAME" when there is a name.
[[noreturn]] void refuse_zip(const File& file, const std::string& name, const std::string& what);

}  // namespace moelora
