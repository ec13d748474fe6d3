#include "lib/io/shard_split.h"

#include <fmt/format.h>

#include "lib/io/safetensors.h"

namespace moelora {
namespace {

// An upper bound of a header entry: the name may be escaped, offsets have at most 20 digits.
uint64_t header_bytes(const std::string& name, const Tensor& tensor) {
  uint64_t escaped = 0;
  for (const char c : name)
    escaped += static_cast<unsigned char>(c) < 0x20 ? 6 : c == '"' || c == '\\' ? 2 : 1;
  return escaped + 100 + 21 * static_cast<uint64_t>(tensor.rank());
}

}  // namespace

std::vector<Shard> split_shards(const std::string& stem, const TensorMap& tensors,
                                uint64_t max_bytes) {
  std::vector<Shard> shards(1);
  uint64_t bytes = 0, header = 0;
  for (const NamedTensor& item : tensors) {
    const auto& [name, tensor] = item;
    const uint64_t more = tensor.bytes(), more_header = header_bytes(name, tensor);
    const bool full = (max_bytes != 0 && bytes + more > max_bytes) ||
                      header + more_header > kHubHeaderBytes - 65536;
    if (full && !shards.back().tensors.empty()) {
      shards.emplace_back();
      bytes = header = 0;
    }
    shards.back().tensors.push_back(&item);
    bytes += more;
    header += more_header;
  }
  for (size_t i = 0; i < shards.size(); ++i)
    shards[i].file = shards.size() == 1
                         ? stem + ".safetensors"
                         : fmt::format("{}-{:05}-of-{:05}.safetensors", stem, i + 1, shards.size());
  return shards;
}

}  // namespace moelora
