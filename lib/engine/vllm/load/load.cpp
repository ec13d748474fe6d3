#include "lib/engine/vllm/load/load.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "lib/engine/vllm/causes.h"

namespace moelora::vllm {
namespace {

void copy(const Loading& load, const Module& module, const Lora& lora, Slot& slot) {
  if (module.kind == Kind::experts)
    copy_experts(load, lora, slot);
  else if (module.kind == Kind::stacked_experts)
    copy_stacked_experts(load, lora, slot);
  else
    copy_dense(load, module, lora, slot);
}

void accept(Loading& load, const Lora& lora, Slot& slot, RankLoad& out) {
  for (Placement& write : slot.writes) {
    const auto buffer = static_cast<uint32_t>(out.buffers.size());
    out.buffers.push_back(std::move(slot.buffers[write.buffer]));
    for (const View& part : write.parts)
      for (uint32_t source : part.sources) {
        load.states[source].use = Use::copied;
        load.states[source].buffer = std::min(load.states[source].buffer, buffer);
      }
    write.buffer = buffer;
    out.placements.push_back(std::move(write));
  }
  for (const auto& [source, misfit] : slot.misfits) load.states[source].misfit |= misfit;
  for (size_t i = 0; i < lora.as.size(); ++i)
    if (lora.as[i].has_value() != lora.bs[i].has_value())
      for (uint32_t source : (lora.as[i] ? lora.as[i] : lora.bs[i])->sources)
        load.states[source].use = Use::half;
}

const Cause* cause_of(const Module& module, const Lora& lora, const Slot& slot,
                      const Raised& raised, const Settings& settings) {
  if (raised.type == "RuntimeError" && slot.at.only_rank) return &cause::rank_over_limit;
  if (raised.type != "AssertionError") return &cause::shape_refused;
  if (!module.is_experts()) return &cause::half_pair;
  if (!lora.packed) return &cause::layout_class_mismatch;
  return settings.shared_outer ? &cause::shared_outer_flag : &cause::fully_sharded_rank;
}

std::string what_went_wrong(const Module& module, const Lora& lora, const Slot& slot,
                            const Cause* cause, const Settings& settings) {
  if (cause == &cause::fully_sharded_rank)
    return fmt::format("{}: --fully-sharded-loras cuts the rank into {} parts", module.name,
                       settings.tp);
  if (cause == &cause::half_pair)
    return fmt::format("{} has lora_{} alone", module.name, lora.has_a() ? 'A' : 'B');
  if (cause == &cause::layout_class_mismatch || cause == &cause::shared_outer_flag)
    return fmt::format("{} is wrapped by {}", module.name,
                       module.kind == Kind::experts
                           ? "FusedMoEWithLoRA, which takes one pair per expert and projection"
                           : "FusedMoE3DWithLoRA, which takes gate_up and down of all experts");
  if (slot.at.name.empty())
    return fmt::format("{} cannot be cut for a rank of {}", to_string(slot.at.shape), module.name);
  return fmt::format("{} does not fit into {} {}", to_string(slot.at.shape), slot.at.name,
                     to_string(slot.at.buffer));
}

// All that the module was given is refused: of stacked experts the inner pair beside it too.
void refuse(Loading& load, const Module& module, const Wanted& wanted, const Lora& lora,
            const Slot& slot, const Raised& raised) {
  const Settings& settings = load.server.settings;
  const Cause* const cause = cause_of(module, lora, slot, raised, settings);
  std::vector<uint32_t> all;
  add_sources(lora, all);
  if (const Lora* inner = load.model.find(wanted.inner)) add_sources(*inner, all);
  for (uint32_t source : all) load.states[source].use = Use::refused;
  load.events.push_back(refused(cause, "copy", raised,
                                what_went_wrong(module, lora, slot, cause, settings),
                                raised.type == "AssertionError" ? all : slot.at.tensors));
}

// Every module's set_lora(): what is cut for this rank and written where (stage copy). The buffers
// of a module without an entry are zero. A module that is refused leaves no placement.
void copy_modules(Loading& load, RankLoad& out) {
  for (size_t m = 0; m < load.server.modules.size(); ++m) {
    const Module& module = load.server.modules[m];
    const Wanted& wanted = load.adapter.wanted[m];
    const Lora* lora = load.model.find(wanted.own);
    if (lora == nullptr) continue;
    Slot slot(module_buffers(load.server, module));
    if (const auto raised = raised_by([&] { copy(load, module, *lora, slot); }))
      refuse(load, module, wanted, *lora, slot, *raised);
    else
      accept(load, *lora, slot, out);
  }
}

}  // namespace

std::optional<LoadEvent> start_event(const Settings& settings) {
  if (!settings.fully_sharded || settings.max_rank % settings.tp == 0) return std::nullopt;
  const std::string text = fmt::format("{} is not divisible by {}", settings.max_rank, settings.tp);
  return refused(
      &cause::fully_sharded_rank, "start", Raised("AssertionError", text),
      fmt::format("--max-lora-rank {} is cut into {} parts", settings.max_rank, settings.tp));
}

RankLoad load_on_rank(const Server& server, const Adapter& adapter, int64_t rank) {
  RankLoad out;
  out.events = adapter.events;
  if (adapter.file == nullptr) return out;
  Loading load{server, adapter, rank, LoraModel(adapter), {}, {}};
  load.states.resize(adapter.file->tensors.size());
  if (out.events.empty()) {
    load_tensors(load);
    if (load.events.empty()) {
      pack(load);
      copy_modules(load, out);
    }
    out.events = std::move(load.events);
  }
  out.states = std::move(load.states);
  return out;
}

}  // namespace moelora::vllm
