#include "tests/engine/vllm_filled.h"

#include <filesystem>
#include <map>

#include "lib/engine/vllm/plan/blocks.h"
#include "lib/engine/vllm/plan/fill.h"
#include "lib/io/safetensors.h"

namespace moelora::test {
namespace {

vllm::Server server_as_3d(const VllmRun& run) {
  const VllmBase& base = vllm_base(run.family);
  vllm::Settings settings =
      vllm::make_settings(run.options(), base.spec, *EngineVersion::parse(run.version));
  settings.force_stacked = true;
  return vllm::make_server(base.spec, base.config, std::move(settings));
}

RankBuffers filled_as_3d(const VllmRun& run) {
  const vllm::Server server = server_as_3d(run);
  const ServedAdapter served = vllm_adapter(run.folder());
  const vllm::Adapter adapter = vllm::open_adapter(server, served);
  const vllm::RankLoad load = vllm::load_on_rank(server, adapter, run.rank);
  if (auto refusal = vllm::refusal_of(server, load)) return {std::move(refusal), {}};
  return {std::nullopt, vllm::filled_buffers(server, adapter, load, vllm_values(run.folder()))};
}

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

RankBuffers vllm_filled(const VllmRun& run) {
  return run.mode == "as3d" ? filled_as_3d(run) : find_engine("vllm")->fill(Asked(run).request);
}

std::vector<ServedBlock> vllm_blocks(const VllmRun& run) {
  if (run.mode != "as3d") return find_engine("vllm")->blocks(Asked(run).request, vllm_filled(run));
  std::vector<TensorMap> ranks(static_cast<size_t>(run.tp));
  ranks[static_cast<size_t>(run.rank)] = filled_as_3d(run).buffers;
  return vllm::served_blocks(server_as_3d(run), run.rank, ranks);
}

}  // namespace moelora::test
