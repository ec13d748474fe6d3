#include "tests/engine/vllm_filled.h"

#include <fmt/format.h>

#include <filesystem>
#include <map>

#include "lib/io/safetensors.h"
#include "tests/engine/crc32.h"

namespace moelora::test {
namespace {

// A request with all that it refers to.
struct Asked {
  explicit Asked(const VllmRun& run)
      : served(vllm_adapter(run.folder())),
        values(served.files.size(), vllm_values(run.folder())),
        options(run.options()),
        version(*EngineVersion::parse(run.version)),
        base(vllm_base(run.family)),
        request{served, values, base.spec, base.config, options, version, run.rank} {}
  ServedAdapter served;
  std::vector<TensorMap> values;
  ServerOptions options;
  EngineVersion version;
  const VllmBase& base;
  BufferRequest request;
};

}  // namespace

const TensorMap& vllm_values(const std::string& folder) {
  static std::map<std::string, SafetensorsFile> files;
  const std::string path = vllm_weights_path(folder);
  const auto [at, fresh] = files.try_emplace(path);
  if (fresh && std::filesystem::exists(path)) at->second = open_safetensors(path);
  return at->second.tensors;
}

// As pack_vllm.py has it: "NAME EXTENT EXTENT ..\n" and the values of every buffer, by name.
uint32_t buffers_crc(const TensorMap& buffers) {
  uint32_t crc = 0;
  for (const auto& [name, buffer] : buffers) {
    const std::string line = fmt::format("{} {}\n", name, fmt::join(buffer.shape(), " "));
    crc = crc32(std::as_bytes(std::span<const char>(line)), crc);
    crc = crc32(buffer.read(), crc);
  }
  return crc;
}

// NaNs of F8 become other NaNs in torch 2.6 than in 2.11.
bool has_nan_payloads(const VllmRun& run) {
  return run.version != "0.22" && run.version != "0.27" && run.adapter == "pe_f8_e4m3";
}

RankBuffers vllm_filled(const VllmRun& run) { return engines::vllm.fill(Asked(run).request); }

std::vector<ServedBlock> vllm_blocks(const VllmRun& run) {
  return engines::vllm.blocks(Asked(run).request, vllm_filled(run));
}

}  // namespace moelora::test
