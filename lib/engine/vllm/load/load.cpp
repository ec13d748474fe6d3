#include "lib/engine/vllm/load/load.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "lib/engine/vllm/causes.h"

namespace moelora::vllm {
namespace {

// Every module's set_lora(): what is cut for this rank and written where (stage copy). The buffers
// of a module without an entry are zero. A module that is refused leaves no placement.
class CopyStep {
 public:
  CopyStep(Loading& load, RankLoad& out)
      : load_(load), server_(load.server), adapter_(load.adapter), out_(out) {}

  void run() {
    for (size_t m = 0; m < server_.modules.size(); ++m) {
      const Module& module = server_.modules[m];
      const Lora* lora = load_.model.find(adapter_.wanted[m].own);
      if (lora == nullptr) continue;
      Slot slot(module_buffers(server_, module));
      if (const auto raised = raised_by([&] { copy(module, *lora, slot); }))
        refuse(module, adapter_.wanted[m], *lora, slot, *raised);
      else
        accept(module, *lora, slot);
    }
  }

 private:
  void copy(const Module& module, const Lora& lora, Slot& slot) const {
    const CopyContext context{server_, load_.rank, load_.model, slot};
    if (module.kind == Kind::experts)
      copy_experts(context, lora);
    else if (module.kind == Kind::stacked_experts)
      copy_stacked_experts(context, lora);
    else
      copy_dense(context, module, lora);
  }

  void accept(const Module& module, const Lora& lora, Slot& slot) {
    out_.set_modules.push_back(module.name);
    for (Placement& write : slot.writes) {
      const auto buffer = static_cast<uint32_t>(out_.buffers.size());
      out_.buffers.push_back(std::move(slot.buffers[write.buffer]));
      for (const View& part : write.parts)
        for (uint32_t source : part.sources) {
          load_.states[source].use = Use::copied;
          load_.states[source].buffer = std::min(load_.states[source].buffer, buffer);
        }
      write.buffer = buffer;
      out_.placements.push_back(std::move(write));
    }
    for (const auto& [source, misfit] : slot.misfits) load_.states[source].misfit |= misfit;
    for (size_t i = 0; i < lora.as.size(); ++i)
      if (lora.as[i].has_value() != lora.bs[i].has_value())
        for (uint32_t source : (lora.as[i] ? lora.as[i] : lora.bs[i])->sources)
          load_.states[source].use = Use::half;
  }

  const Cause* cause_of(const Module& module, const Lora& lora, const Slot& slot,
                        const Raised& raised) const {
    if (raised.type == "RuntimeError" && slot.at.only_rank) return &cause::rank_over_limit;
    if (raised.type != "AssertionError") return &cause::shape_refused;
    if (!module.is_experts()) return &cause::half_pair;
    if (!lora.packed) return &cause::layout_class_mismatch;
    return server_.settings.shared_outer ? &cause::shared_outer_flag : &cause::fully_sharded_rank;
  }

  std::string what_went_wrong(const Module& module, const Lora& lora, const Slot& slot,
                              const Cause* cause) const {
    if (cause == &cause::fully_sharded_rank)
      return fmt::format("{}: --fully-sharded-loras cuts the rank into {} parts", module.name,
                         server_.settings.tp);
    if (cause == &cause::half_pair)
      return fmt::format("{} has lora_{} alone", module.name, lora.has_a() ? 'A' : 'B');
    if (cause == &cause::layout_class_mismatch || cause == &cause::shared_outer_flag)
      return fmt::format("{} is wrapped by {}", module.name,
                         module.kind == Kind::experts
                             ? "FusedMoEWithLoRA, which takes one pair per expert and projection"
                             : "FusedMoE3DWithLoRA, which takes gate_up and down of all experts");
    if (slot.at.name.empty())
      return fmt::format("{} cannot be cut for a rank of {}", to_string(slot.at.shape),
                         module.name);
    return fmt::format("{} does not fit into {} {}", to_string(slot.at.shape), slot.at.name,
                       to_string(slot.at.buffer));
  }

  // Of a refused module: what it was given, and the inner pair of stacked experts beside it.
  std::vector<uint32_t> sources_of(const Wanted& wanted, const Lora& lora) {
    std::vector<uint32_t> out;
    add_sources(lora, out);
    if (const Lora* inner = load_.model.find(wanted.inner)) add_sources(*inner, out);
    return out;
  }

  void refuse(const Module& module, const Wanted& wanted, const Lora& lora, const Slot& slot,
              const Raised& raised) {
    const Cause* const cause = cause_of(module, lora, slot, raised);
    const std::vector<uint32_t> all = sources_of(wanted, lora);
    for (uint32_t source : all) load_.states[source].use = Use::refused;
    const bool whole = raised.type == "AssertionError";
    load_.events.push_back(refused(cause, "copy", raised,
                                   what_went_wrong(module, lora, slot, cause),
                                   whole ? all : slot.at.tensors));
  }

  Loading& load_;
  const Server& server_;
  const Adapter& adapter_;
  RankLoad& out_;
};

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
  Loading load(server, adapter, rank);
  if (out.events.empty()) {
    load_tensors(load);
    if (load.events.empty()) {
      pack(load);
      CopyStep(load, out).run();
    }
    out.events = std::move(load.events);
  }
  out.states = std::move(load.states);
  return out;
}

}  // namespace moelora::vllm
