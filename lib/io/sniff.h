#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/io/file.h"

namespace moelora {

// What the bytes of a file say it is, whatever its name says.
enum class FileKind : uint8_t {
  unknown,
  zip,           // torch.save's, or one that cannot be told from it
  zip_of_files,  // of an adapter's folder
  npz,
  gzip,
  packed,  // xz, bzip2, zstd, lz4, 7z, rar
  pickle,
  torch_legacy,  // torch.save before 1.6: pickles one after the other
  tar,           // NeMo's .nemo, a folder, torch.save of 2016
  lfs_pointer,
  gguf,
  hdf5,
  html,
  json,
  link_text,  // "../../blobs/1f2e..": where a link of the hub's cache stood
};

FileKind sniff(const File& file);

std::string_view describe(FileKind kind);                    // "a Python pickle (torch.save)" ...
std::string remedy(FileKind kind, const std::string& path);  // what to do about it, an instruction

// Commands that save what torch.save wrote to `path` as safetensors beside it: all of it, the dict
// under one key of it, or the parameters of a TorchScript archive.
std::string resave_hint(const std::string& path);
std::string resave_part_hint(const std::string& path, std::string_view key);
std::string resave_script_hint(const std::string& path);

}  // namespace moelora
