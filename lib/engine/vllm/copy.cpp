#include "lib/engine/vllm/copy.h"

#include <fmt/format.h>

#include <algorithm>

namespace moelora::vllm {

void CopyStep::run() {
  for (size_t m = 0; m < server_.modules.size(); ++m) {
    const Module& module = server_.modules[m];
    const Lora* lora = model_.find(adapter_.wanted[m].own);
    if (lora == nullptr) continue;
    writes_.clear();
    misfits_.clear();
    if (const auto raised = raised_by([&] { copy(module, *lora); }))
      refuse(module, adapter_.wanted[m], *lora, *raised);
    else
      accept(module, *lora);
  }
}

void CopyStep::copy(const Module& module, const Lora& lora) {
  switch (module.kind) {
    case Kind::merged:
      return copy_lists(module, lora.as, lora.bs);
    case Kind::embedding:
      return copy_embedding(lora);
    case Kind::variable:
      return copy_variable(module, lora);
    case Kind::experts:
      return copy_experts(lora);
    case Kind::stacked_experts:
      return copy_stacked(lora);
    case Kind::unknown:
    case Kind::replicated:
    case Kind::column:
    case Kind::row:
    case Kind::logits:
      return copy_single(module, lora);
  }
}

void CopyStep::accept(const Module& module, const Lora& lora) {
  set_modules.push_back(module.name);
  for (Write& write : writes_) {
    write.buffer.name.insert(0, module.name + ".");
    if (buffers.empty() || buffers.back().name != write.buffer.name)
      buffers.push_back(std::move(write.buffer));
    const auto buffer = static_cast<uint32_t>(buffers.size() - 1);
    for (uint32_t source : write.view.sources) {
      states_[source].use = Use::copied;
      states_[source].buffer = std::min(states_[source].buffer, buffer);
    }
    placements.push_back(
        {buffer, std::move(write.start), std::move(write.count), std::move(write.view)});
  }
  for (const auto& [source, misfit] : misfits_) {
    Misfit& all = states_[source].misfit;
    all.smaller |= misfit.smaller;
    all.larger |= misfit.larger;
    all.collapsed |= misfit.collapsed;
  }
  for (size_t i = 0; i < lora.as.size(); ++i)
    if (lora.as[i].has_value() != lora.bs[i].has_value())
      for (uint32_t source : (lora.as[i] ? lora.as[i] : lora.bs[i])->sources)
        states_[source].use = Use::half;
}

std::string_view CopyStep::cause_of(const Module& module, const Lora& lora,
                                    const Raised& raised) const {
  if (raised.type == "RuntimeError") return too_much_rank_ ? cause::kRankOverLimit : cause::kShape;
  if (raised.type != "AssertionError") return cause::kShape;
  if (!module.is_experts()) return cause::kHalfPair;
  if (!lora.packed) return cause::kLayoutClass;
  return settings_.shared_outer ? cause::kSharedOuter : cause::kFullyShardedRank;
}

// Of a refused module: what it was given, and the inner pair of stacked experts beside it.
std::vector<uint32_t> CopyStep::sources_of(const Wanted& wanted, const Lora& lora) {
  std::vector<uint32_t> out;
  add_sources(lora, out);
  if (const Lora* inner = model_.find(wanted.inner)) add_sources(*inner, out);
  return out;
}

std::string CopyStep::what_went_wrong(const Module& module, const Lora& lora,
                                      std::string_view cause) const {
  if (cause == cause::kFullyShardedRank)
    return fmt::format("{}: --fully-sharded-loras cuts the rank into {} parts", module.name,
                       settings_.tp);
  if (cause == cause::kHalfPair)
    return fmt::format("{} has lora_{} alone", module.name, lora.has_a() ? 'A' : 'B');
  if (cause == cause::kLayoutClass || cause == cause::kSharedOuter)
    return fmt::format("{} is wrapped by {}", module.name,
                       module.kind == Kind::experts
                           ? "FusedMoEWithLoRA, which takes a pair an expert and projection"
                           : "FusedMoE3DWithLoRA, which takes gate_up and down of all experts");
  if (at_.attribute.empty())
    return fmt::format("{} cannot be cut for a rank of {}", to_string(at_.shape), module.name);
  return fmt::format("{} does not fit into {}.{} {}", to_string(at_.shape), module.name,
                     at_.attribute, to_string(at_.buffer));
}

void CopyStep::refuse(const Module& module, const Wanted& wanted, const Lora& lora,
                      const Raised& raised) {
  const std::string_view cause = cause_of(module, lora, raised);
  const std::vector<uint32_t> all = sources_of(wanted, lora);
  const bool whole = raised.type == "AssertionError";
  for (uint32_t source : all) states_[source].use = Use::refused;
  faults_.push_back(refused(cause, "copy", raised, what_went_wrong(module, lora, cause),
                            whole ? all : at_.tensors));
}

void CopyStep::expect(const View& view, int64_t dim, int64_t extent) {
  if (extent < 0 || dim >= view.rank() || view.dim(dim) == extent) return;
  Misfit misfit;
  (view.dim(dim) < extent ? misfit.smaller : misfit.larger) = true;
  for (uint32_t source : view.sources) misfits_.emplace_back(source, misfit);
}

void CopyStep::put(const std::string& attribute, const Shape& buffer,
                   const std::vector<View>& parts, size_t clipped) {
  Shape source = parts.front().shape;
  at_ = {parts.front().sources, source, attribute, buffer};
  Shape destination = buffer;
  for (size_t d = clipped; d < buffer.size(); ++d)
    parts.front().size(static_cast<int64_t>(d));  // raises for want of dims
  for (size_t i = 1; i < parts.size(); ++i)
    source[clipped] += parts[i].dim(static_cast<int64_t>(clipped));
  for (size_t d = clipped; d < buffer.size(); ++d) destination[d] = std::min(buffer[d], source[d]);
  const size_t rank_dim = attribute.find("_b_") != std::string::npos ? buffer.size() - 1 : clipped;
  too_much_rank_ = source.size() == buffer.size();
  for (size_t d = 0; d < std::min(source.size(), buffer.size()); ++d)
    too_much_rank_ = too_much_rank_ && (d == rank_dim || source[d] <= buffer[d]);
  check_copy(destination, source);
  Shape start(buffer.size(), 0);
  for (const View& part : parts) {
    Shape count = destination;
    count[clipped] = part.dim(static_cast<int64_t>(clipped));
    writes_.push_back({{attribute, buffer}, start, count, part});
    start[clipped] += count[clipped];
  }
}

void CopyStep::put_dense(const std::string& attribute, const Shape& buffer, const View& view) {
  put(attribute, buffer, {view}, 0);
}

void CopyStep::put_experts(const std::string& attribute, const Shape& buffer,
                           std::vector<View> parts) {
  put(attribute, buffer, parts, 1);
}

}  // namespace moelora::vllm
