#include "tests/engine/vllm_filled.h"

#include <filesystem>
#include <map>

#include "lib/io/safetensors.h"

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

RankBuffers vllm_filled(const VllmRun& run) { return engines::vllm.fill(Asked(run).request); }

std::vector<ServedBlock> vllm_blocks(const VllmRun& run) {
  return engines::vllm.blocks(Asked(run).request, vllm_filled(run));
}

}  // namespace moelora::test
