#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/io/file.h"

namespace moelora {

// One record of a zip archive: plain bytes of the file, as nothing is compressed.
struct ZipEntry {
  std::string name;
  uint64_t begin = 0, size = 0;  // of its data, absolute
  uint32_t crc = 0;              // as the directory says; nobody has looked at the data
};

// The records of an archive as torch.save writes it, in file order. Readers of zip archives differ
// wherever an archive contradicts itself, so everything that can be said twice must be said alike:
// records are stored (method 0), not encrypted, and follow one another from byte 0 to the directory
// without a gap or an overlap; each local header and data descriptor repeats its directory entry;
// names differ and are plain relative paths; zip64 fields stand where they must; the only other
// extra field is torch's padding "FB". Throws Error at PATH or "PATH: RECORD".
// `see_name` is shown each name before its record is judged: what it throws is the verdict.
std::vector<ZipEntry> read_zip_directory(
    const File& file, const std::function<void(const std::string& name)>& see_name = {});

}  // namespace moelora
