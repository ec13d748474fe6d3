#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/dtype.h"
#include "lib/base/tensor.h"
#include "lib/io/file.h"

namespace moelora {

// What the header of a .npy file says. Elements are little-endian.
struct NpyHeader {
  DType dtype = DType::F64;
  Shape shape;                 // at most kMaxNpyRank dims
  bool fortran_order = false;  // first index fastest
  size_t data_begin = 0;       // offset of element 0
};

inline constexpr size_t kMaxNpyRank = 8;
inline constexpr size_t kMaxNpyHeader = 10'000;  // numpy's own default limit

// An array in memory.
struct NpyArray {
  NpyHeader header;
  std::vector<std::byte> data;  // elements only, in the file's order
};

// Format versions 1.0, 2.0 and 3.0 (numpy/lib/format.py). The header is a Python dict literal with
// exactly the keys descr, fortran_order and shape; it is read as that and nothing else. Refuses
// object arrays (a pickle), structured and big-endian dtypes, and data that is not exactly as long
// as shape and dtype say. Throws Error at `where`.
NpyArray parse_npy(std::span<const std::byte> bytes, const std::string& where);

inline constexpr uint64_t kMaxNpzBytes = uint64_t{512} << 20;  // of all arrays together

// The arrays of a .npz archive (numpy.savez, numpy.savez_compressed) by name, without ".npy". As
// strict as the reader of torch archives (zip_directory.h), sizes and CRC-32 as declared; sizes are
// checked before anything is inflated. Throws Error at "PATH: NAME".
std::map<std::string, NpyArray> read_npz(const File& file);

}  // namespace moelora
