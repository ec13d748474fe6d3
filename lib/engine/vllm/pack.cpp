#include "lib/engine/vllm/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace moelora::vllm {
namespace {

Raised none_times_float() {
  return Raised("TypeError", "unsupported operand type(s) for *=: 'NoneType' and 'float'");
}

}  // namespace

void PackStep::run() {
  const bool empty = model_.loras().empty();
  for (const Module& module : server_.modules) {
    if (module.kind == Kind::merged)
      pack_dense(module);
    else if (module.is_experts() && server_.settings.shared_outer)
      pack_shared_outer(module);
    else if (module.kind == Kind::experts)
      pack_experts(module);
  }
  optimize();
  for (const Module& module : server_.modules) {
    if (module.kind == Kind::stacked_experts)
      stack_experts(module);
    else if (module.kind == Kind::experts && server_.settings.mixed &&
             server_.settings.stacked_flag)
      convert_experts(module);
  }
  if (empty)
    faults_.push_back(
        refused(cause::kTensorLoader, "pack", Raised("StopIteration"), "the file holds no factor"));
  else
    pin();
}

void PackStep::refuse(std::string_view cause, std::string_view stage, const Raised& raised,
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

Lora& PackStep::put(const Module& module) {
  std::vector<uint32_t> replaced;
  if (const Lora* old = model_.find(module.name)) add_sources(*old, replaced);
  for (uint32_t tensor : replaced) states_[tensor].use = Use::overwritten;
  Lora& out = model_.add(module.name);
  out.packed = true;
  return out;
}

std::string PackStep::child_name(const Module& module, const std::string& child) const {
  return module.name.substr(0, module.name.rfind('.') + 1) + child;
}

// PackedLoRALayerWeights.pack: a child that is not there stays None.
void PackStep::pack_dense(const Module& module) {
  std::vector<Lora*> children;
  for (const Child& child : module.children) children.push_back(model_.find(child.name));
  if (std::all_of(children.begin(), children.end(), [](Lora* l) { return l == nullptr; })) return;
  for (Lora*& child : children) {
    if (child == nullptr || child->b[0] || child->scale == 1) continue;
    refuse(cause::kHalfPair, "pack", none_times_float(),
           fmt::format("{} has lora_A without lora_B", child->module), {child});
    child = nullptr;
  }
  Lora& out = put(module);
  out.a.assign(children.size(), std::nullopt);
  out.b = out.a;
  for (size_t i = 0; i < children.size(); ++i) {
    if (children[i] == nullptr) continue;
    out.a[i] = std::move(children[i]->a[0]);
    if (children[i]->b[0]) out.b[i] = children[i]->b[0]->scaled(children[i]->scale);
    model_.drop(*children[i]);
  }
}

// LoRALayerWeights.optimize of what is not packed, in the dict's order.
void PackStep::optimize() {
  for (Lora& lora : model_.loras()) {
    if (lora.dropped || lora.packed || lora.scale == 1) continue;
    if (!lora.b[0]) {
      refuse(cause::kHalfPair, "pack", none_times_float(),
             fmt::format("{} has lora_A without lora_B", lora.module), {&lora});
      continue;
    }
    lora.b[0]->scale *= lora.scale;
    lora.scale = 1;
  }
}

// pin_memory() of every factor, but for an adapter whose first entry is a list.
void PackStep::pin() {
  auto& loras = model_.loras();
  const auto first = std::find_if(loras.begin(), loras.end(), [](Lora& l) { return !l.dropped; });
  if (first == loras.end() || first->packed) return;
  if (!first->a[0])
    refuse(cause::kHalfPair, "pack", assertion_error(),
           fmt::format("{} has lora_B without lora_A and is the first of the file", first->module),
           {&*first});
  for (Lora& lora : loras) {
    if (lora.dropped) continue;
    const bool half = std::any_of(lora.a.begin(), lora.a.end(), [&](auto& a) {
      const auto& b = lora.b[static_cast<size_t>(&a - lora.a.data())];
      return lora.packed ? a && !b : !a || !b;
    });
    if (half)
      refuse(cause::kHalfPair, "pack", none_has_no("pin_memory"),
             fmt::format("{} has one factor of a pair only", lora.module), {&lora});
  }
}

}  // namespace moelora::vllm
