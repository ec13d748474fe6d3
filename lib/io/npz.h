#pragma once

#include <map>
#include <string>

#include "lib/io/file.h"
#include "lib/io/npy.h"

namespace moelora {

inline constexpr uint64_t kMaxNpzBytes = uint64_t{512} << 20;  // of all arrays together

// The arrays of a .npz archive (numpy.savez, numpy.savez_compressed) by name, without ".npy".
// Strict as the reader of torch archives: records stored or deflated, one after another from byte 0
// to the directory, every local header as its directory entry says, sizes and CRC-32 as declared;
// names differ. Sizes are checked before anything is inflated. Throws Error at "PATH: NAME".
std::map<std::string, NpyArray> read_npz(const File& file);

}  // namespace moelora
