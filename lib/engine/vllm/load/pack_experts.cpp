// What _create_merged_loras_inplace does with the experts.

#include <fmt/format.h>

#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/load/pack.h"

namespace moelora::vllm {

// torch.stack of one factor of every expert.
View PackStep::stack(const std::vector<Lora*>& experts, bool a) const {
  std::vector<uint32_t> tensors;
  for (const Lora* lora : experts) {
    tensors.push_back(a ? lora->a : lora->b);
    if (tensors.back() == Lora::kNoTensor)
      throw Raised("TypeError",
                   fmt::format("expected Tensor as element {} in argument 0, but got NoneType",
                               tensors.size() - 1));
  }
  return View::stack(tensors, [&](uint32_t tensor) -> const Shape& {
    return adapter_.file->tensors[tensor].shape;
  });
}

// pack_moe: three pairs of every expert of this rank, all of one shape.
void PackStep::pack_experts(const Module& module, const Wanted& wanted) {
  const size_t words = wanted.children.size() / static_cast<size_t>(server_.spec.experts);
  const auto first = static_cast<size_t>(server_.first_expert(rank_)) * words;
  const auto count = static_cast<size_t>(server_.local_experts()) * words;
  std::vector<std::vector<Lora*>> by_word(words);
  std::vector<Lora*> all;
  std::vector<size_t> missing;
  for (size_t i = first; i < first + count; ++i) {
    Lora* lora = model_.find(wanted.children[i]);
    by_word[i % words].push_back(lora);
    if (lora != nullptr)
      all.push_back(lora);
    else
      missing.push_back(i);
  }
  if (all.empty()) return;
  if (!missing.empty())
    return refuse(&cause::incomplete_experts, "pack", assertion_error(),
                  fmt::format("{} has no {}; {} of {} pairs are there", module.name,
                              server_.expert_names[missing.front()], all.size(), count),
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
  Lora& out = put(wanted);
  for (size_t w = 0; w < 3; ++w) b[w]->scale = adapter_.config.expert_scaling;
  out.as = std::move(a);
  out.bs = std::move(b);
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
      const bool whole = lora->has_a() && lora->has_b();
      if (half ? !whole : !same_shapes(*lora, *experts.front())) odd.push_back(lora);
    }
  refuse(half ? &cause::incomplete_experts : &cause::unequal_ranks, "pack", raised,
         (odd.empty() ? module.name : name_of(*odd.front())) +
             (half ? " has one factor of a pair only"
                   : " has factors of another shape than the first expert's"),
         all, odd);
}

bool PackStep::same_shapes(const Lora& one, const Lora& other) const {
  const auto shape = [&](uint32_t tensor) {
    return tensor == Lora::kNoTensor ? Shape{} : adapter_.file->tensors[tensor].shape;
  };
  return shape(one.a) == shape(other.a) && shape(one.b) == shape(other.b);
}

// pack_moe_stacked: experts.w1, w2, w3 as they are.
void PackStep::pack_shared_outer(const Module& module, const Wanted& wanted) {
  std::vector<Lora*> found;
  for (uint32_t child : wanted.children)
    if (Lora* lora = model_.find(child)) found.push_back(lora);
  if (found.empty()) return;
  if (found.size() < wanted.children.size())
    return refuse(&cause::incomplete_experts, "pack", assertion_error(),
                  fmt::format("{} needs experts.w1, w2 and w3, {} of them are there", module.name,
                              found.size()),
                  found);
  Lora& out = put(wanted);
  out.as.resize(found.size());
  out.bs.resize(found.size());
  for (size_t i = 0; i < found.size(); ++i) {
    found[i]->b_scale = adapter_.config.expert_scaling;
    if (found[i]->has_a()) out.as[i] = model_.a(*found[i]);
    if (found[i]->has_b()) out.bs[i] = model_.b(*found[i]);
    model_.drop(*found[i]);
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

void PackStep::refuse_stacked(const Module& module, std::string_view stage, const Raised& raised,
                              const std::vector<Lora*>& loras) {
  if (raised.type == "AttributeError")
    return refuse(&cause::half_pair, stage, raised, module.name + " has one factor of a pair only",
                  loras);
  refuse(&cause::shape_refused, stage, raised,
         fmt::format("{}: the stacked factors do not divide among the base's {} experts",
                     module.name, server_.spec.experts),
         loras);
}

// _stack_moe_lora_weights: "experts.base_layer" is gate_up, "experts" is down.
void PackStep::stack_experts(const Module& module, const Wanted& wanted) {
  Lora* down = model_.find(wanted.own);
  if (down == nullptr || down->packed || !down->has_a()) return;
  Lora* gate_up = model_.find(wanted.inner);
  if (gate_up == nullptr)
    return refuse(&cause::incomplete_experts, "stack3d", assertion_error(),
                  module.name + ".base_layer (gate_up_proj) is missing: one parameter alone",
                  {down});
  View a13, a2, b13, b2;
  const auto raised = raised_by([&] {
    if (!gate_up->has_a()) throw none_has_no("reshape");
    a13 = per_expert_a(model_.a(*gate_up));
    a2 = per_expert_a(model_.a(*down));
    if (!gate_up->has_b()) throw none_has_no("reshape");
    b13 = per_expert_b(model_.b(*gate_up));
    if (!down->has_b()) throw none_has_no("reshape");
    b2 = per_expert_b(model_.b(*down));
  });
  if (raised) return refuse_stacked(module, "stack3d", *raised, {gate_up, down});
  down->pack({a13, a2}, {b13, b2});
  model_.drop(*gate_up);
}

// _convert_3d_to_2d_moe_lora: the same, then gate_up's rows split into w1 and w3.
void PackStep::convert_experts(const Module& module, const Wanted& wanted) {
  Lora *gate_up = model_.find(wanted.inner), *down = model_.find(wanted.own);
  if (gate_up == nullptr || down == nullptr) return;
  View a13, a2, b1, b2, b3;
  const auto raised = raised_by([&] {
    if (!gate_up->has_a()) throw none_has_no("reshape");
    a13 = per_expert_a(model_.a(*gate_up));
    if (!gate_up->has_b()) throw none_has_no("reshape");
    const View b13 = per_expert_b(model_.b(*gate_up));
    if (down->packed) throw Raised("AttributeError", "'list' object has no attribute 'reshape'");
    if (!down->has_a()) throw none_has_no("reshape");
    a2 = per_expert_a(model_.a(*down));
    if (!down->has_b()) throw none_has_no("reshape");
    b2 = per_expert_b(model_.b(*down));
    const int64_t rows = b13.dim(1), half = rows / 2;
    if (rows % 2 != 0)
      throw Raised("ValueError", fmt::format("Expected gate_up_proj LoRA-B output dim to be 2 * "
                                             "intermediate, got {}.",
                                             rows));
    b1 = server_.is_gpt_oss() ? b13.slice(1, 0, rows, 2) : b13.slice(1, 0, half);
    b3 = server_.is_gpt_oss() ? b13.slice(1, 1, rows, 2) : b13.slice(1, half, rows);
  });
  if (raised) return refuse_stacked(module, "convert3d", *raised, {gate_up, down});
  down->pack({a13, a2, a13}, {b1, b2, b3});
  model_.drop(*gate_up);
}

}  // namespace moelora::vllm
