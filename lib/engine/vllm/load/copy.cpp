#include "lib/engine/vllm/load/copy.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/vllm/causes.h"

namespace moelora::vllm {

void CopyStep::run() {
  for (size_t m = 0; m < server_.modules.size(); ++m) {
    const Module& module = server_.modules[m];
    const Lora* lora = model_.find(adapter_.wanted[m].own);
    if (lora == nullptr) continue;
    Slot slot(module_buffers(server_, module));
    if (const auto raised = raised_by([&] { copy(module, *lora, slot); }))
      refuse(module, adapter_.wanted[m], *lora, slot, *raised);
    else
      accept(module, *lora, slot);
  }
}

void CopyStep::copy(const Module& module, const Lora& lora, Slot& slot) const {
  const CopyContext context{server_, rank_, model_, slot};
  if (module.kind == Kind::experts)
    copy_experts(context, lora);
  else if (module.kind == Kind::stacked_experts)
    copy_stacked_experts(context, lora);
  else
    copy_dense(context, module, lora);
}

void CopyStep::accept(const Module& module, const Lora& lora, Slot& slot) {
  set_modules.push_back(module.name);
  for (Slot::Write& write : slot.writes) {
    const auto buffer = static_cast<uint32_t>(buffers.size());
    buffers.push_back(std::move(slot.buffers[write.buffer]));
    for (const View& part : write.parts)
      for (uint32_t source : part.sources) {
        states_[source].use = Use::copied;
        states_[source].buffer = std::min(states_[source].buffer, buffer);
      }
    placements.push_back({buffer, write.axis, std::move(write.parts), std::move(write.count)});
  }
  for (const auto& [source, misfit] : slot.misfits) states_[source].misfit |= misfit;
  for (size_t i = 0; i < lora.as.size(); ++i)
    if (lora.as[i].has_value() != lora.bs[i].has_value())
      for (uint32_t source : (lora.as[i] ? lora.as[i] : lora.bs[i])->sources)
        states_[source].use = Use::half;
}

const Cause* CopyStep::cause_of(const Module& module, const Lora& lora, const Slot& slot,
                                const Raised& raised) const {
  if (raised.type == "RuntimeError" && slot.at.only_rank) return &cause::rank_over_limit;
  if (raised.type != "AssertionError") return &cause::shape_refused;
  if (!module.is_experts()) return &cause::half_pair;
  if (!lora.packed) return &cause::layout_class_mismatch;
  return server_.settings.shared_outer ? &cause::shared_outer_flag : &cause::fully_sharded_rank;
}

std::string CopyStep::what_went_wrong(const Module& module, const Lora& lora, const Slot& slot,
                                      const Cause* cause) const {
  if (cause == &cause::fully_sharded_rank)
    return fmt::format("{}: --fully-sharded-loras cuts the rank into {} parts", module.name,
                       server_.settings.tp);
  if (cause == &cause::half_pair)
    return fmt::format("{} has lora_{} alone", module.name, lora.has_a() ? 'A' : 'B');
  if (cause == &cause::layout_class_mismatch || cause == &cause::shared_outer_flag)
    return fmt::format("{} is wrapped by {}", module.name,
                       module.kind == Kind::experts
                           ? "FusedMoEWithLoRA, which takes a pair an expert and projection"
                           : "FusedMoE3DWithLoRA, which takes gate_up and down of all experts");
  if (slot.at.name.empty())
    return fmt::format("{} cannot be cut for a rank of {}", to_string(slot.at.shape), module.name);
  return fmt::format("{} does not fit into {} {}", to_string(slot.at.shape), slot.at.name,
                     to_string(slot.at.buffer));
}

// Of a refused module: what it was given, and the inner pair of stacked experts beside it.
std::vector<uint32_t> CopyStep::sources_of(const Wanted& wanted, const Lora& lora) {
  std::vector<uint32_t> out;
  add_sources(lora, out);
  if (const Lora* inner = model_.find(wanted.inner)) add_sources(*inner, out);
  return out;
}

void CopyStep::refuse(const Module& module, const Wanted& wanted, const Lora& lora,
                      const Slot& slot, const Raised& raised) {
  const Cause* const cause = cause_of(module, lora, slot, raised);
  const std::vector<uint32_t> all = sources_of(wanted, lora);
  for (uint32_t source : all) states_[source].use = Use::refused;
  const bool whole = raised.type == "AssertionError";
  faults_.push_back(refused(cause, "copy", raised, what_went_wrong(module, lora, slot, cause),
                            whole ? all : slot.at.tensors));
}

}  // namespace moelora::vllm
