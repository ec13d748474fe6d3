// Input: the bytes of a .npz archive.

#include "lib/io/npy.h"
#include "tests/fuzz/memory_file.h"

// What is read is no larger than the limit.
void fuzz(std::string_view input) {
  using namespace moelora;
  const MemoryFile file(input);
  uint64_t total = 0;
  for (const auto& entry : read_npz(*File::open(file.path()))) total += entry.second.data.size();
  require(total <= kMaxNpzBytes);
}
