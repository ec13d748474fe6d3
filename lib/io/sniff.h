#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "lib/io/file.h"

namespace moelora {

// What the first bytes of a file say it is, whatever its name says.
enum class FileKind : uint8_t { unknown, zip, pickle, lfs_pointer, gguf, hdf5, html, json };

FileKind sniff(const File& file);

std::string_view describe(FileKind kind);  // "a Python pickle (torch.save)" ...
std::string mend(FileKind kind);           // what to do about it, as an instruction

// The command that saves the pickled weights `from` as safetensors `to`.
std::string resave_hint(std::string_view from, std::string_view to);

}  // namespace moelora
