// What _create_merged_loras_inplace does with the experts.

#include <fmt/format.h>

#include "lib/engine/vllm/pack.h"

namespace moelora::vllm {
namespace {

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

// Of one factor; empty where it is not there.
Shape shape_of(const std::optional<View>& view) { return view ? view->shape : Shape{}; }

bool same_shapes(const Lora& one, const Lora& other) {
  return shape_of(one.a[0]) == shape_of(other.a[0]) && shape_of(one.b[0]) == shape_of(other.b[0]);
}

}  // namespace

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
  if (raised) return refuse_stack(module, *raised, by_word);
  Lora& out = put(module);
  out.a = std::move(a);
  for (size_t w = 0; w < 3; ++w) b[w]->scale *= config_.expert_scaling;
  out.b = std::move(b);
  for (Lora* lora : all) model_.drop(*lora);
}

// An expert without one of its factors, or with factors of another shape than the first expert's.
void PackStep::refuse_stack(const Module& module, const Raised& raised,
                            const std::vector<std::vector<Lora*>>& by_word) {
  const bool half = raised.type == "TypeError";
  std::vector<Lora*> all, odd;
  for (const std::vector<Lora*>& experts : by_word)
    for (Lora* lora : experts) {
      all.push_back(lora);
      const bool whole = lora->a[0] && lora->b[0];
      if (half ? !whole : !same_shapes(*lora, *experts.front())) odd.push_back(lora);
    }
  const std::string name = odd.empty() ? module.name : odd.front()->module;
  refuse(half ? cause::kIncompleteExperts : cause::kUnequalRanks, "pack", raised,
         name + (half ? " has one factor of a pair only"
                      : " has factors of another shape than the first expert's"),
         all, odd);
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
                  fmt::format("{}: the stacked factors do not divide among the base's {} experts",
                              module.name, server_.spec.experts),
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
                  fmt::format("{}: the stacked factors do not divide among the base's {} experts",
                              module.name, server_.spec.experts),
                  {gate_up, down});
  down->packed = true;
  down->a = {a13, a2, a13};
  down->b = {b1, b2, b3};
  model_.drop(*gate_up);
}

}  // namespace moelora::vllm
