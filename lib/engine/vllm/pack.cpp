#include "lib/engine/vllm/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace moelora::vllm {
namespace {

void add_sources(const std::vector<std::optional<View>>& views, std::vector<uint32_t>& out) {
  for (const auto& view : views)
    if (view) out.insert(out.end(), view->sources.begin(), view->sources.end());
}

Raised none_times_float() {
  return Raised("TypeError", "unsupported operand type(s) for *=: 'NoneType' and 'float'");
}

Raised none_has_no(std::string_view attribute) {
  return Raised("AttributeError",
                fmt::format("'NoneType' object has no attribute '{}'", attribute));
}

// torch.stack of one factor of every expert.
View stack(const std::vector<Lora*>& experts, bool a) {
  std::vector<const View*> parts;
  for (const Lora* lora : experts) {
    const std::optional<View>& view = (a ? lora->a : lora->b)[0];
    if (!view)
      throw Raised("TypeError",
                   fmt::format("expected Tensor as element {} in argument 0, but got NoneType",
                               parts.size()));
    parts.push_back(&*view);
  }
  return View::stack(parts);
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
                      std::string detail, const std::vector<Lora*>& loras) {
  std::vector<uint32_t> tensors;
  for (Lora* lora : loras) {
    if (lora == nullptr) continue;
    add_sources(lora->a, tensors);
    add_sources(lora->b, tensors);
    model_.drop(*lora);
  }
  for (uint32_t tensor : tensors) states_[tensor].use = Use::refused;
  faults_.push_back(refused(cause, stage, raised, std::move(detail), std::move(tensors)));
}

Lora& PackStep::put(const Module& module) {
  std::vector<uint32_t> replaced;
  if (Lora* old = model_.find(module.name)) {
    add_sources(old->a, replaced);
    add_sources(old->b, replaced);
  }
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

// pack_moe: three factors pairs of every expert of this rank, all of one shape.
void PackStep::pack_experts(const Module& module) {
  const size_t words = server_.expert_names.size() / static_cast<size_t>(server_.spec.experts);
  const auto first = static_cast<size_t>(server_.first_expert(rank_)) * words;
  const auto count = static_cast<size_t>(server_.local_experts()) * words;
  std::vector<std::vector<Lora*>> by_word(words);
  std::vector<Lora*> all;
  std::string missing;
  for (size_t i = first; i < first + count; ++i) {
    Lora* lora = model_.find(child_name(module, server_.expert_names[i]));
    if (lora == nullptr && missing.empty()) missing = server_.expert_names[i];
    by_word[i % words].push_back(lora);
    if (lora != nullptr) all.push_back(lora);
  }
  if (all.empty()) return;
  if (!missing.empty())
    return refuse(cause::kIncompleteExperts, "pack", assertion_error(),
                  fmt::format("{} has no {}; {} of {} factor pairs are there", module.name, missing,
                              all.size(), count),
                  all);
  // w1 w2 of A, w1 w2 of B, then w3.
  std::vector<std::optional<View>> a(3), b(3);
  const auto raised = raised_by([&] {
    for (size_t w = 0; w < 2; ++w) a[w] = stack(by_word[w], true);
    for (size_t w = 0; w < 2; ++w) b[w] = stack(by_word[w], false);
    a[2] = words == 3 ? stack(by_word[2], true) : *a[0];
    b[2] = words == 3 ? stack(by_word[2], false) : *b[0];
  });
  if (raised) {
    const bool half = raised->type == "TypeError";
    return refuse(half ? cause::kIncompleteExperts : cause::kUnequalRanks, "pack", *raised,
                  module.name + (half ? ": an expert has one factor of a pair only"
                                      : ": the experts' factors are not all of one shape"),
                  all);
  }
  Lora& out = put(module);
  out.a = std::move(a);
  for (size_t w = 0; w < 3; ++w) b[w]->scale *= config_.expert_scaling;
  out.b = std::move(b);
  for (Lora* lora : all) model_.drop(*lora);
}

// pack_moe_stacked: experts.w1, w2, w3 as they are.
void PackStep::pack_shared_outer(const Module& module) {
  std::vector<Lora*> children, found;
  for (const std::string& name : server_.expert_names) {
    children.push_back(model_.find(child_name(module, name)));
    if (children.back() != nullptr) found.push_back(children.back());
  }
  if (found.empty()) return;
  if (found.size() < children.size())
    return refuse(cause::kIncompleteExperts, "pack", assertion_error(),
                  fmt::format("{} needs experts.w1, w2 and w3, {} of them are there", module.name,
                              found.size()),
                  found);
  Lora& out = put(module);
  out.a.clear();
  out.b.clear();
  for (Lora* child : children) {
    out.a.push_back(std::move(child->a[0]));
    out.b.push_back(std::move(child->b[0]));
    if (out.b.back()) out.b.back()->scale *= config_.expert_scaling;
    model_.drop(*child);
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

// (E*r, in) -> (E, r, in), this rank's experts.
View PackStep::per_expert_a(const View& a) const {
  const int64_t first = server_.first_expert(rank_);
  return a.reshape({server_.spec.experts, -1, a.size(-1)})
      .slice(0, first, first + server_.local_experts());
}

// (out, E*r) -> (E, out, r): column k*E + e; before #31534 column e*r + k.
View PackStep::per_expert_b(const View& b) const {
  const int64_t first = server_.first_expert(rank_), experts = server_.spec.experts;
  const int64_t rows = b.size(0);
  const View split = server_.settings.rank_major_b
                         ? b.reshape({rows, -1, experts}).permute({2, 0, 1})
                         : b.reshape({rows, experts, -1}).permute({1, 0, 2});
  return split.slice(0, first, first + server_.local_experts());
}

// _stack_moe_lora_weights: "experts.base_layer" is gate_up, "experts" is down.
void PackStep::stack_experts(const Module& module) {
  Lora* down = model_.find(module.name);
  if (down == nullptr || down->packed || !down->a[0]) return;
  Lora* gate_up = model_.find(module.name + ".base_layer");
  if (gate_up == nullptr)
    return refuse(
        cause::kIncompleteExperts, "stack3d", assertion_error(),
        fmt::format("{}.base_layer (gate_up_proj) is missing: one parameter alone", module.name),
        {down});
  View parts[4];
  const auto raised = raised_by([&] {
    if (!gate_up->a[0]) throw none_has_no("reshape");
    parts[0] = per_expert_a(*gate_up->a[0]);
    parts[1] = per_expert_a(*down->a[0]);
    if (!gate_up->b[0] || !down->b[0]) throw none_has_no("reshape");
    parts[2] = per_expert_b(*gate_up->b[0]);
    parts[3] = per_expert_b(*down->b[0]);
  });
  if (raised)
    return refuse(raised->type == "AttributeError" ? cause::kHalfPair : cause::kShape, "stack3d",
                  *raised,
                  fmt::format("{}: the base has {} experts", module.name, server_.spec.experts),
                  {gate_up, down});
  down->packed = true;
  down->a = {parts[0], parts[1]};
  down->b = {parts[2], parts[3]};
  model_.drop(*gate_up);
}

// _convert_3d_to_2d_moe_lora: the same, then gate_up's rows split into w1 and w3.
void PackStep::convert_experts(const Module& module) {
  Lora *gate_up = model_.find(module.name + ".base_layer"), *down = model_.find(module.name);
  if (gate_up == nullptr || down == nullptr) return;
  View a13, a2, b1, b2, b3;
  const auto raised = raised_by([&] {
    if (!gate_up->a[0]) throw none_has_no("reshape");
    a13 = per_expert_a(*gate_up->a[0]);
    if (!gate_up->b[0]) throw none_has_no("reshape");
    const View b13 = per_expert_b(*gate_up->b[0]);
    if (down->packed) throw Raised("AttributeError", "'list' object has no attribute 'reshape'");
    if (!down->a[0]) throw none_has_no("reshape");
    a2 = per_expert_a(*down->a[0]);
    if (!down->b[0]) throw none_has_no("reshape");
    b2 = per_expert_b(*down->b[0]);
    const int64_t rows = b13.dim(1), half = rows / 2;
    if (rows % 2 != 0)
      throw Raised("ValueError", fmt::format("Expected gate_up_proj LoRA-B output dim to be 2 * "
                                             "intermediate, got {}.",
                                             rows));
    b1 = server_.is_gpt_oss() ? b13.slice(1, 0, rows, 2) : b13.slice(1, 0, half);
    b3 = server_.is_gpt_oss() ? b13.slice(1, 1, rows, 2) : b13.slice(1, half, rows);
  });
  if (raised)
    return refuse(raised->type == "AttributeError" ? cause::kHalfPair : cause::kShape, "convert3d",
                  *raised,
                  fmt::format("{}: the base has {} experts", module.name, server_.spec.experts),
                  {gate_up, down});
  down->packed = true;
  down->a = {a13, a2, a13};
  down->b = {b1, b2, b3};
  model_.drop(*gate_up);
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
