#include "tests/engine/sglang_scenario_pools.h"

#include <fmt/format.h>

#include <fstream>
#include <map>

#include "lib/base/crc32.h"
#include "lib/engine/sglang/pool/pool_values.h"
#include "tests/engine/served_from_folder.h"

namespace moelora::test {
namespace {

struct Digest {
  size_t buffers = 0;
  uint32_t crc = 0;
  friend bool operator==(const Digest&, const Digest&) = default;
};

std::map<std::string, Digest> read_digests() {
  std::map<std::string, Digest> out;
  std::ifstream file(std::string(MOELORA_SOURCE_DIR) + "/tests/engine/sglang_scenario_pools.txt");
  std::string label, id;
  Digest digest;
  while (file >> label >> id >> digest.buffers >> digest.crc) out[label + " " + id] = digest;
  return out;
}

Digest digest_of(const TensorMap& buffers) {
  Digest out;
  for (const auto& [name, tensor] : buffers) {
    out.crc = crc32(out.crc, std::as_bytes(std::span(name)));
    out.crc = crc32(out.crc, tensor.read());
    ++out.buffers;
  }
  return out;
}

}  // namespace

ScenarioPool compare_scenario_pool(const sglang::Server& server, size_t index,
                                   const std::string& folder, const std::string& label) {
  static const std::map<std::string, Digest> kDigests = read_digests();
  const auto theirs = kDigests.find(fmt::format("{} id{}", label, index));
  if (theirs == kDigests.end()) return {};
  const std::vector<TensorMap> files = values_from_folder(folder);
  const Digest ours = digest_of(
      sglang::fill_pool(server, index, server.pool_of(0), served_from_folder(folder), files));
  if (ours == theirs->second) return {ours.buffers, ""};
  return {ours.buffers, fmt::format("{} buffers of {} with CRC {}, not {} with {}", ours.buffers,
                                    server.adapter(index).name, ours.crc, theirs->second.buffers,
                                    theirs->second.crc)};
}

}  // namespace moelora::test
