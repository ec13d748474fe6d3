#include "lib/engine/vllm/load.h"

#include "lib/engine/vllm/pack.h"

namespace moelora::vllm {
RankLoad load_on_rank(const Server& server, const Adapter& adapter, int64_t rank) {
  RankLoad out;
  out.faults = adapter.faults;
  if (adapter.file == nullptr) return out;
  out.states.resize(adapter.file->tensors.size());
  if (!adapter.faults.empty()) return out;
  LoraModel model = load_tensors(server, adapter, rank, out.states, out.faults);
  if (!out.faults.empty()) return out;
  PackStep(server, adapter, rank, model, out.states, out.faults).run();
  CopyStep copy(server, adapter, rank, model, out.states, out.faults);
  copy.run();
  out.buffers = std::move(copy.buffers);
  out.placements = std::move(copy.placements);
  out.set_modules = std::move(copy.set_modules);
  return out;
}

}  // namespace moelora::vllm
