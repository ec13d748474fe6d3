#include "lib/engine/vllm/load/load.h"

#include <fmt/format.h>

#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/load/pack.h"

namespace moelora::vllm {

std::optional<Fault> start_fault(const Settings& settings) {
  if (!settings.fully_sharded || settings.max_rank % settings.tp == 0) return std::nullopt;
  const std::string text = fmt::format("{} is not divisible by {}", settings.max_rank, settings.tp);
  return refused(
      &cause::fully_sharded_rank, "start", Raised("AssertionError", text),
      fmt::format("--max-lora-rank {} is cut into {} parts", settings.max_rank, settings.tp));
}

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
