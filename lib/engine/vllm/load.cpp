#include "lib/engine/vllm/load.h"

#include <fmt/format.h>

#include "lib/engine/vllm/pack.h"

namespace moelora::vllm {
namespace {

std::string files_of(const ServedAdapter& adapter) {
  std::vector<std::string_view> names;
  for (const WeightFile& file : adapter.files) names.push_back(file.name);
  return names.empty() ? "no weights file" : fmt::format("{}", fmt::join(names, ", "));
}

}  // namespace

Adapter open_adapter(const Server& server, const ServedAdapter& served) {
  Adapter out{served, read_config(served, server.settings), chosen_file(served), {}, {}};
  out.faults = out.config.faults;
  if (out.file == nullptr) {
    out.faults.push_back(
        refused(cause::kTensorLoader, "file",
                Raised("ValueError", fmt::format("{} doesn't contain tensors", served.folder)),
                fmt::format("vLLM reads adapter_model.safetensors, .bin or .pt in one piece; the "
                            "folder has {}",
                            files_of(served))));
    return out;
  }
  out.names.reserve(out.file->tensors.size());
  for (const TensorHeader& header : out.file->tensors)
    out.names.push_back(parse_name(server, header.name));
  for (Fault& fault : check_names(server, served, *out.file, out.names))
    out.faults.push_back(std::move(fault));
  return out;
}

RankLoad load_on_rank(const Server& server, const Adapter& adapter, int64_t rank) {
  RankLoad out;
  out.faults = adapter.faults;
  if (adapter.file == nullptr) return out;
  out.states.resize(adapter.file->tensors.size());
  if (!adapter.faults.empty()) return out;
  LoraModel model = TensorStep{server, *adapter.file, adapter.names, adapter.config, rank}.run(
      out.states, out.faults);
  if (!out.faults.empty()) return out;
  PackStep(server, adapter.config, rank, model, out.states, out.faults).run();
  CopyStep copy(server, rank, model, out.states, out.faults);
  copy.run();
  out.buffers = std::move(copy.buffers);
  out.placements = std::move(copy.placements);
  out.set_modules = std::move(copy.set_modules);
  return out;
}

}  // namespace moelora::vllm
