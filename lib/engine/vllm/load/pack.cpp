#include <fmt/core.h>

#include <algorithm>

#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/load/lora_model.h"

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

class PackStep {
 public:
  explicit PackStep(Loading& load)
      : load_(load), server_(load.server), adapter_(load.adapter), model_(load.model) {}

  // _validate_moe_lora_format, since 0.32: stacked experts where the wrapper is not the stacked
  // one.
  void check_format() {
    const Settings& settings = server_.settings;
    if (!settings.has("0.32") || (settings.mixed && settings.stacked_flag)) return;
    for (size_t m = 0; m < server_.modules.size(); ++m) {
      const Module& module = server_.modules[m];
      Lora* outer = model_.find(adapter_.wanted[m].own);
      if (module.kind != Kind::experts || outer == nullptr) continue;
      std::vector<Lora*> pairs{outer};
      if (Lora* inner = model_.find(adapter_.wanted[m].inner)) pairs.push_back(inner);
      refuse(settings.shared_outer && server_.model.stacked ? &cause::shared_outer_flag
                                                            : &cause::layout_class_mismatch,
             "load", fused_on_2d(module),
             module.name +
                 " is wrapped by FusedMoEWithLoRA, which takes one pair per expert and "
                 "projection",
             pairs);
    }
  }

  void run() {
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
      load_.events.push_back(refused(&cause::tensor_loader, "pack", Raised("StopIteration"),
                                     "the file holds no factor"));
    else
      pin();
  }

 private:
  // Takes `loras` out; the finding names the tensors of `concerned` (of all of them where empty).
  void refuse(const Cause* cause, std::string_view stage, const Raised& raised, std::string detail,
              const std::vector<Lora*>& loras, const std::vector<Lora*>& concerned = {}) {
    std::vector<uint32_t> all, named;
    for (Lora* lora : loras) {
      add_sources(*lora, all);
      model_.drop(*lora);
    }
    for (const Lora* lora : concerned) add_sources(*lora, named);
    for (uint32_t tensor : all) load_.states[tensor].use = Use::refused;
    load_.events.push_back(refused(cause, stage, raised, std::move(detail),
                                   named.empty() ? std::move(all) : std::move(named)));
  }

  void refuse_half(Lora& lora, const Raised& raised, std::string_view what) {
    refuse(&cause::half_pair, "pack", raised, fmt::format("{} {}", name_of(lora), what), {&lora});
  }

  // The module's packed entry, in place of one of its name.
  Lora& put(const Wanted& wanted) {
    std::vector<uint32_t> replaced;
    if (const Lora* old = model_.find(wanted.own)) add_sources(*old, replaced);
    for (uint32_t tensor : replaced) load_.states[tensor].use = Use::overwritten;
    Lora& out = model_.add(wanted.own);
    out.packed = true;
    return out;
  }

  // PackedLoRALayerWeights.pack.
  void pack_dense(const Wanted& wanted) {
    std::vector<Lora*> children;
    for (uint32_t child : wanted.children) children.push_back(model_.find(child));
    if (std::all_of(children.begin(), children.end(), [](Lora* l) { return l == nullptr; })) return;
    for (Lora*& child : children) {
      if (child == nullptr || child->has_b() || child->scale == 1) continue;
      refuse_half(*child, none_times_float(), "has lora_A without lora_B");
      child = nullptr;
    }
    put_pairs(wanted, children);
  }

  // A child that is not there stays None.
  void put_pairs(const Wanted& wanted, const std::vector<Lora*>& children) {
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
  void optimize() {
    for (Lora& lora : model_.loras()) {
      if (lora.dropped || lora.packed || lora.scale == 1) continue;
      lora.b_scale = lora.scale;
      if (!lora.has_b()) refuse_half(lora, none_times_float(), "has lora_A without lora_B");
    }
  }

  // pin_memory() of every factor, but for an adapter whose first entry is a list.
  void pin() {
    auto& loras = model_.loras();
    const auto first = std::find_if(loras.begin(), loras.end(), [](Lora& l) { return !l.dropped; });
    if (first == loras.end() || first->packed) return;
    if (!first->has_a())
      refuse_half(*first, assertion_error(),
                  "has lora_B without lora_A and is the first of the file");
    for (Lora& lora : loras)
      if (!lora.dropped && has_half(lora))
        refuse_half(lora, none_has_no("pin_memory"), "has one factor of a pair only");
  }

  // torch.stack of one factor of every expert.
  View stack(const std::vector<Lora*>& experts, bool a) const {
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
  void pack_experts(const Module& module, const Wanted& wanted) {
    const size_t words = wanted.children.size() / static_cast<size_t>(server_.spec.experts);
    const auto first = static_cast<size_t>(server_.first_expert(load_.rank)) * words;
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
    if (server_.model.experts_named_twice)
      return refuse(&cause::experts_named_twice, "pack", assertion_error(),
                    fmt::format("{}: vLLM's Transformers backend looks for every expert under two "
                                "spellings and asserts that all are there",
                                module.name),
                    all);
    if (!missing.empty())
      return refuse(&cause::incomplete_experts, "pack", assertion_error(),
                    fmt::format("{} has no {}; {} of {} pairs are there", module.name,
                                server_.expert_names[missing.front()], all.size(), count),
                    all);
    // w1 w2 of A, w1 w2 of B, then w3.
    std::vector<std::optional<View>> a(3), b(3);
    const auto raised = raised_by([&] {
      if (server_.settings.has("0.32"))
        for (const std::vector<Lora*>& experts : by_word) check_ranks(module, experts);
      for (size_t w = 0; w < 2; ++w) a[w] = stack(by_word[w], true);
      for (size_t w = 0; w < 2; ++w) b[w] = stack(by_word[w], false);
      a[2] = words == 3 ? stack(by_word[2], true) : *a[0];
      b[2] = words == 3 ? stack(by_word[2], false) : *b[0];
    });
    if (raised) return refuse_stack(module, *raised, by_word);
    Lora& out = put(wanted);
    for (size_t w = 0; w < 3; ++w) set_scales(*b[w], by_word[w < words ? w : 0]);
    out.as = std::move(a);
    out.bs = std::move(b);
    for (Lora* lora : all) model_.drop(*lora);
  }

  // Of one projection, since 0.32.
  void check_ranks(const Module& module, const std::vector<Lora*>& experts) const {
    const auto rank = [&](const Lora& lora) {
      if (!lora.has_a()) throw none_has_no("shape");
      return model_.a(lora).size(0);
    };
    const int64_t first = rank(*experts.front());
    for (const Lora* lora : experts)
      if (rank(*lora) != first)
        throw Raised("ValueError",
                     fmt::format("The experts of {} have different LoRA ranks for the same "
                                 "projection, which is not supported.",
                                 module.name));
  }

  // Of a stack of these experts' lora_B.
  static void set_scales(View& stack, const std::vector<Lora*>& experts) {
    stack.scale = experts.front()->expert_scale;
    for (const Lora* lora : experts) stack.scales.push_back(lora->expert_scale);
  }

  // An expert without one of its factors, or with factors of another shape than the first expert's.
  void refuse_stack(const Module& module, const Raised& raised,
                    const std::vector<std::vector<Lora*>>& by_word) {
    const bool half = raised.type == "TypeError" || raised.type == "AttributeError";
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

  bool same_shapes(const Lora& one, const Lora& other) const {
    const auto shape = [&](uint32_t tensor) {
      return tensor == Lora::kNoTensor ? Shape{} : adapter_.file->tensors[tensor].shape;
    };
    return shape(one.a) == shape(other.a) && shape(one.b) == shape(other.b);
  }

  // pack_moe_stacked: experts.w1, w2, w3 as they are.
  void pack_shared_outer(const Module& module, const Wanted& wanted) {
    std::vector<Lora*> found;
    for (uint32_t child : wanted.children)
      if (Lora* lora = model_.find(child)) found.push_back(lora);
    if (found.empty()) return;
    if (found.size() < wanted.children.size())
      return refuse(&cause::incomplete_experts, "pack", assertion_error(),
                    fmt::format("{} needs experts.w1, w2 and w3, {} of them are there", module.name,
                                found.size()),
                    found);
    for (Lora* lora : found) lora->scale = lora->expert_scale;
    put_pairs(wanted, found);
  }

  // (E*r, in) -> (E, r, in), this rank's experts.
  View expert_as(const Lora& lora) const {
    if (!lora.has_a()) throw none_has_no("reshape");
    const View a = model_.a(lora);
    const int64_t first = server_.first_expert(load_.rank);
    return a.reshape({server_.spec.experts, -1, a.size(-1)})
        .slice(0, first, first + server_.local_experts());
  }

  // (out, E*r) -> (E, out, r): column k*E + e; before #31534 column e*r + k.
  View expert_bs(const Lora& lora) const {
    if (!lora.has_b()) throw none_has_no("reshape");
    const View b = model_.b(lora);
    const int64_t first = server_.first_expert(load_.rank), experts = server_.spec.experts;
    const int64_t rows = b.size(0);
    const View split = server_.settings.has("0.14")
                           ? b.reshape({rows, -1, experts}).permute({2, 0, 1})
                           : b.reshape({rows, experts, -1}).permute({1, 0, 2});
    return split.slice(0, first, first + server_.local_experts());
  }

  void refuse_stacked(const Module& module, std::string_view stage, const Raised& raised,
                      const std::vector<Lora*>& loras) {
    if (raised.type == "AttributeError")
      return refuse(&cause::half_pair, stage, raised,
                    module.name + " has one factor of a pair only", loras);
    refuse(&cause::shape_refused, stage, raised,
           fmt::format("{}: the stacked factors do not divide among the base's {} experts",
                       module.name, server_.spec.experts),
           loras);
  }

  // _stack_moe_lora_weights: "experts.base_layer" is gate_up, "experts" is down.
  void stack_experts(const Module& module, const Wanted& wanted) {
    Lora* down = model_.find(wanted.own);
    if (down == nullptr || down->packed || !down->has_a()) return;
    Lora* gate_up = model_.find(wanted.inner);
    if (gate_up == nullptr)
      return refuse(&cause::incomplete_experts, "stack3d", assertion_error(),
                    module.name + ".base_layer (gate_up_proj) is missing: one parameter alone",
                    {down});
    View a13, a2, b13, b2;
    const auto raised = raised_by([&] {
      a13 = expert_as(*gate_up);
      a2 = expert_as(*down);
      b13 = expert_bs(*gate_up);
      b2 = expert_bs(*down);
    });
    if (raised) return refuse_stacked(module, "stack3d", *raised, {gate_up, down});
    down->pack({a13, a2}, {b13, b2});
    model_.drop(*gate_up);
  }

  // _convert_3d_to_2d_moe_lora: the same, then gate_up's rows split into w1 and w3.
  void convert_experts(const Module& module, const Wanted& wanted) {
    Lora *gate_up = model_.find(wanted.inner), *down = model_.find(wanted.own);
    if (gate_up == nullptr || down == nullptr) return;
    View a13, a2, b1, b2, b3;
    const auto raised = raised_by([&] {
      a13 = expert_as(*gate_up);
      const View b13 = expert_bs(*gate_up);
      if (down->packed) throw Raised("AttributeError", "'list' object has no attribute 'reshape'");
      a2 = expert_as(*down);
      b2 = expert_bs(*down);
      const int64_t rows = b13.dim(1), half = rows / 2;
      if (rows % 2 != 0)
        throw Raised("ValueError", fmt::format("Expected gate_up_proj LoRA-B output dim to be 2 * "
                                               "intermediate, got {}.",
                                               rows));
      b1 = server_.model.interleaved ? b13.slice(1, 0, rows, 2) : b13.slice(1, 0, half);
      b3 = server_.model.interleaved ? b13.slice(1, 1, rows, 2) : b13.slice(1, half, rows);
    });
    if (raised) return refuse_stacked(module, "convert3d", *raised, {gate_up, down});
    down->pack({a13, a2, a13}, {b1, b2, b3});
    model_.drop(*gate_up);
  }

  // The adapter's number is that of the first one loaded.
  static Raised fused_on_2d(const Module& module) {
    return Raised(
        "ValueError",
        fmt::format("LoRA adapter 1 contains fused 3D MoE weights for '{}', but the model "
                    "uses a 2D MoE LoRA wrapper. Start the engine with "
                    "enable_mixed_moe_lora_format=True (--enable-mixed-moe-lora-format) "
                    "and set is_3d_lora_weight=True on the LoRA request.",
                    module.name));
  }

  const std::string& name_of(const Lora& lora) const { return adapter_.modules[lora.module]; }

  Loading& load_;
  const Server& server_;
  const Adapter& adapter_;
  LoraModel& model_;
};

}  // namespace

void pack(Loading& load) {
  PackStep step(load);
  step.check_format();
  step.run();
}

}  // namespace moelora::vllm
