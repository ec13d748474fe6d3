// Input: the bytes of a file. Checksums are not looked at, so that a change reaches the pickle.

#include "lib/io/torch/torch_file.h"
#include "lib/io/zip/zip_directory.h"
#include "tests/fuzz/memory_file.h"

namespace {

using namespace moelora;

// Records lie one after the other inside the file, under names that are plain.
void require_sound(const std::vector<ZipEntry>& entries, uint64_t file_size) {
  uint64_t end = 0;
  for (const ZipEntry& entry : entries) {
    require(entry.begin >= end && entry.begin <= file_size &&
            entry.size <= file_size - entry.begin);
    require(!entry.name.empty() && ("/" + entry.name + "/").find("/../") == std::string::npos);
    end = entry.begin + entry.size;
  }
}

}  // namespace

// Every tensor of a file that opens can be read, and none is larger than the limit.
void fuzz(std::string_view input) {
  const MemoryFile file(input);
  require_sound(read_zip_directory(*File::open(file.path()), kTorchSave), input.size());
  const TorchFile opened = open_torch_file(file.path(), {.ignore_crc = true});
  uint64_t total = 0;
  for (const auto& entry : opened.tensors) total += entry.second.bytes();
  require(total <= uint64_t{256} << 20);
  for (const auto& [name, tensor] : opened.tensors)
    if (tensor.bytes() <= 1 << 20) require(tensor.read().size() == tensor.bytes());
}
