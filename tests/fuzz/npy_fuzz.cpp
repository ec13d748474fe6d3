// Input: the bytes of a .npy file.

#include "lib/io/npy.h"
#include "tests/fuzz/fuzz.h"

// An array that is read has as many bytes as its shape and dtype say, and they are all there was.
void fuzz(std::string_view input) {
  using namespace moelora;
  const NpyArray array = parse_npy(std::as_bytes(std::span(input)), "f.npy");
  uint64_t bytes = static_cast<uint64_t>(dtype_bytes(array.header.dtype));
  for (const int64_t extent : array.header.shape) bytes *= static_cast<uint64_t>(extent);
  require(array.data.size() == bytes);
  require(array.header.data_begin + bytes == input.size());
}
