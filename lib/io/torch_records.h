#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/zip_directory.h"

namespace moelora {

// The records of a torch.save archive by their use; pointers into the directory.
struct TorchRecords {
  std::string root;  // the folder that all records share
  const ZipEntry* pickle = nullptr;
  std::map<std::string_view, const ZipEntry*> storages;  // by key
};

// The directory of an archive; TorchScript, which holds code, is refused by its names alone.
std::vector<ZipEntry> read_torch_directory(const File& file);

// Sorts the records of a directory by name and reads the small ones: version, byteorder. Refuses
// big-endian archives and names that torch.save does not write. Throws Error.
TorchRecords sort_torch_records(const File& file, const std::vector<ZipEntry>& directory);

// The CRC-32 of every record against the directory's, on all threads. False when the archive was
// saved without any. Throws Error that names the first damaged record.
bool check_torch_crcs(const File& file, const std::vector<ZipEntry>& directory);

}  // namespace moelora
