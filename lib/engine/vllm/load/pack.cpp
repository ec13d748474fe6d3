#include "lib/engine/vllm/load/pack.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/vllm/causes.h"

namespace moelora::vllm {
namespace {

Raised none_times_float() {
  return Raised("TypeError", "unsupported operand type(s) for *=: 'NoneType' and 'float'");
}

// pin_memory() is called on both, in a list only where there is a lora_A.
bool has_half(const Lora& lora) {
  if (!lora.packed) return !lora.has_a() || !lora.has_b();
  for (size_t i = 0; i < lora.as.size(); ++i)
    if (lora.as[i] && !lora.bs[i]) return true;
  return false;
}

}  // namespace

void PackStep::run() {
  const bool empty = model_.loras().empty();
  const Settings& settings = server_.settings;
  for (size_t m = 0; m < server_.modules.size(); ++m) {
    const Module& module = server_.modules[m];
    if (module.kind == Kind::merged)
      pack_dense(adapter_.wanted[m]);
    else if (module.is_experts() && settings.shared_outer)
      pack_shared_outer(module, adapter_.wanted[m]);
    else if (module.kind == Kind::experts)
      pack_experts(module, adapter_.wanted[m]);
  }
  optimize();
  for (size_t m = 0; m < server_.modules.size(); ++m) {
    const Module& module = server_.modules[m];
    if (module.kind == Kind::stacked_experts)
      stack_experts(module, adapter_.wanted[m]);
    else if (module.kind == Kind::experts && settings.mixed && settings.stacked_flag)
      convert_experts(module, adapter_.wanted[m]);
  }
  if (empty)
    faults_.push_back(refused(&cause::tensor_loader, "pack", Raised("StopIteration"),
                              "the file holds no factor"));
  else
    pin();
}

void PackStep::refuse(const Cause* cause, std::string_view stage, const Raised& raised,
                      std::string detail, const std::vector<Lora*>& loras,
                      const std::vector<Lora*>& concerned) {
  std::vector<uint32_t> all, named;
  for (Lora* lora : loras) {
    add_sources(*lora, all);
    model_.drop(*lora);
  }
  for (const Lora* lora : concerned) add_sources(*lora, named);
  for (uint32_t tensor : all) states_[tensor].use = Use::refused;
  faults_.push_back(refused(cause, stage, raised, std::move(detail),
                            named.empty() ? std::move(all) : std::move(named)));
}

Lora& PackStep::put(const Wanted& wanted) {
  std::vector<uint32_t> replaced;
  if (const Lora* old = model_.find(wanted.own)) add_sources(*old, replaced);
  for (uint32_t tensor : replaced) states_[tensor].use = Use::overwritten;
  Lora& out = model_.add(wanted.own);
  out.packed = true;
  return out;
}

// PackedLoRALayerWeights.pack: a child that is not there stays None.
void PackStep::pack_dense(const Wanted& wanted) {
  std::vector<Lora*> children;
  for (uint32_t child : wanted.children) children.push_back(model_.find(child));
  if (std::all_of(children.begin(), children.end(), [](Lora* l) { return l == nullptr; })) return;
  for (Lora*& child : children) {
    if (child == nullptr || child->has_b() || child->scale == 1) continue;
    refuse(&cause::half_pair, "pack", none_times_float(),
           name_of(*child) + " has lora_A without lora_B", {child});
    child = nullptr;
  }
  Lora& out = put(wanted);
  out.as.resize(children.size());
  out.bs.resize(children.size());
  for (size_t i = 0; i < children.size(); ++i) {
    Lora* child = children[i];
    if (child == nullptr) continue;
    child->b_scale = child->scale;
    if (child->has_a()) out.as[i] = model_.a(*child);
    if (child->has_b()) out.bs[i] = model_.b(*child);
    model_.drop(*child);
  }
}

// LoRALayerWeights.optimize of what is not packed, in the dict's order.
void PackStep::optimize() {
  for (Lora& lora : model_.loras()) {
    if (lora.dropped || lora.packed || lora.scale == 1) continue;
    lora.b_scale = lora.scale;
    if (!lora.has_b())
      refuse(&cause::half_pair, "pack", none_times_float(),
             name_of(lora) + " has lora_A without lora_B", {&lora});
  }
}

// pin_memory() of every factor, but for an adapter whose first entry is a list.
void PackStep::pin() {
  auto& loras = model_.loras();
  const auto first = std::find_if(loras.begin(), loras.end(), [](Lora& l) { return !l.dropped; });
  if (first == loras.end() || first->packed) return;
  if (!first->has_a())
    refuse(&cause::half_pair, "pack", assertion_error(),
           name_of(*first) + " has lora_B without lora_A and is the first of the file", {&*first});
  for (Lora& lora : loras)
    if (!lora.dropped && has_half(lora))
      refuse(&cause::half_pair, "pack", none_has_no("pin_memory"),
             name_of(lora) + " has one factor of a pair only", {&lora});
}

}  // namespace moelora::vllm
