#include "lib/engine/sglang/copy/temp_buffers.h"

#include <fmt/core.h>

#include <unordered_set>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/load/diagnosis.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

constexpr std::string_view kReplaced = "another tensor of the layer takes its place";

struct Sorter {
  const CopyContext& c;
  const Pool& pool;
  const TargetMatcher& matcher;
  TempBuffers out;

  void place(const Staged& entry) {
    const std::string* target = matcher.find(entry.name);
    if (target == nullptr) return refuse_unmatched(c, entry, pool.request.targets);
    const bool stacked = c.features.stacked_experts && entry.rank() == 3;
    const auto expert = expert_of(entry.name);
    if (stacked && contains(entry.name, "shared_experts."))
      lose(entry,
           "SGLang takes 3-D shared experts for its own kind of sink experts and drops them");
    else if (expert && c.features.refuses_numbered_shared &&
             contains(entry.name, "shared_experts."))
      refuse_numbered(entry);
    else if (expert)
      place_expert(entry, *target + "_moe", *expert);
    else if (stacked && contains(entry.name, "experts"))
      place_tensor(entry, *target + "_moe");
    else
      place_tensor(entry, *target);
  }

  void refuse_numbered(const Staged& entry) {
    const int64_t layer = layer_of(entry.name).value_or(0);
    c.adapter.raise(
        {&cause::numbered_shared_experts, stage::kLoad, "ValueError",
         fmt::format("Cannot load LoRA weight '{}': layer {} has no matching target for indexed "
                     "shared-expert weights.",
                     in_text(entry.name), layer),
         "shared experts have numbers, and the model's class holds them as one", true},
        entry.sources());
  }

  void place_expert(const Staged& entry, const std::string& name, int64_t expert) {
    const int index = pool.index_of(name);
    if (index < 0)
      return c.adapter.raise(
          {&cause::experts_on_dense_layer, stage::kLoad, "KeyError", py_repr(name),
           "numbered expert tensors, and the server has no buffer for experts", true},
          entry.sources());
    TempBuffer &a = out.of(index, true), &b = out.of(index, false);
    if (a.is_none()) {  // both sides start anew
      c.adapter.lose(b.sources(), &cause::ignored_tensors, kReplaced);
      b = TempBuffer();
      a.is_dict = b.is_dict = true;
    }
    TempBuffer& side = entry.is_a() ? a : b;
    if (!side.is_dict) return refuse_mixed(entry, side.is_none());
    if (const Staged* before = side.set(expert, entry)) lose(*before, kReplaced);
  }

  // Assigning to an item of a tensor or of None.
  void refuse_mixed(const Staged& entry, bool none) {
    c.adapter.raise(
        {&cause::mixed_layouts, stage::kLoad, "TypeError",
         none ? "'NoneType' object does not support item assignment"
              : "'str' object does not support item assignment",
         "the experts of one projection are stacked in one tensor and numbered in others", true},
        entry.sources());
  }

  void place_tensor(const Staged& entry, const std::string& name) {
    const int index = pool.index_of(name);
    if (index < 0) return lose_unbuffered(entry);
    TempBuffer& side = out.of(index, entry.is_a());
    for (const Staged* before : side.all()) {
      const bool extra = !is_factor(entry.name) && is_factor(before->name);
      c.adapter.lose(before->sources(), extra ? &cause::extra_becomes_b : &cause::ignored_tensors,
                     extra ? "SGLang takes another tensor for the B of this module" : kReplaced);
    }
    side.set(entry);
  }

  void lose_unbuffered(const Staged& entry) {
    const bool experts = contains(entry.name, "experts");
    if (experts && entry.rank() == 2)
      c.adapter.lose(
          entry.sources(), &cause::stacked_peft_experts,
          "a stacked expert parameter as PEFT saves it: SGLang reads it as a dense layer "
          "that the model does not have, and drops it");
    else
      lose(entry, "the server has no buffer for it: it is dropped");
  }

  void lose(const Staged& entry, std::string_view detail) {
    c.adapter.lose(entry.sources(), &cause::ignored_tensors, detail);
  }
};

struct PairChecker {
  const CopyContext& c;
  const Pool& pool;
  const TempBuffers& buffers;

  void check(int layer) {
    for (const WrappedModule& wrapped : c.wrapping.layers[static_cast<size_t>(layer)])
      if (const int index = pool.index_of(wrapped.buffer); index >= 0)
        check_pair(pool.buffers[static_cast<size_t>(index)], buffers.of(index, true),
                   buffers.of(index, false));
    check_outer();
  }

  void check_pair(const Buffer& buffer, const TempBuffer& a, const TempBuffer& b) {
    if (a.empty() != b.empty()) return lone(a.empty() ? b : a);
    if (!buffer.moe || a.empty()) return;
    if (a.tensor == nullptr && b.tensor == nullptr) {
      lone_experts(a, b);
      lone_experts(b, a);
      if (!pool.is_outer(buffer, true) && !pool.is_outer(buffer, false))
        missing_experts(a, static_cast<int64_t>(a.experts.size()));
    } else {
      too_few(buffer, a, true);
      too_few(buffer, b, false);
    }
  }

  void lone(const TempBuffer& side) {
    for (const Staged* staged : side.all()) add_lone(*staged);
  }

  // A partner that is there, but refused, is known already.
  void add_lone(const Staged& staged) {
    for (int32_t source : staged.sources())
      if (!c.adapter.is_refused(source) && c.adapter.partner_of(source) < 0)
        c.adapter.add_event(&cause::orphan_factor, Effect::unused,
                            "a factor without its partner: the server multiplies it with zeros",
                            {source});
  }

  void lone_experts(const TempBuffer& side, const TempBuffer& other) {
    std::unordered_set<int64_t> partners;
    for (const auto& [expert, staged] : other.experts) partners.insert(expert);
    for (const auto& [expert, staged] : side.experts)
      if (partners.count(expert) == 0) add_lone(*staged);
  }

  void too_few(const Buffer& buffer, const TempBuffer& side, bool is_a) {
    if (side.tensor == nullptr || side.tensor->rank() != 3 || pool.is_outer(buffer, is_a)) return;
    if (side.tensor->shape[0] > 1) missing_experts(side, side.tensor->shape[0]);
  }

  void missing_experts(const TempBuffer& side, int64_t count) {
    if (count < c.model.experts)
      c.adapter.add_event(
          &cause::missing_experts, Effect::partial,
          fmt::format("factors for {} of {} experts: the others are served without any", count,
                      c.model.experts),
          side.sources());
  }

  const Staged* stack_of_one(std::string_view name, bool is_a) const {
    const int index = pool.index_of(name);
    const Staged* staged = index < 0 ? nullptr : buffers.of(index, is_a).tensor;
    return staged != nullptr && staged->rank() == 3 && staged->shape[0] == 1 ? staged : nullptr;
  }

  // A factor that all experts share, in a pool that holds one for each.
  void check_outer() {
    if (pool.request.shared_outer || c.model.experts == 1) return;
    const Staged* a = stack_of_one("gate_up_proj_moe", true);
    const Staged* b = stack_of_one("down_proj_moe", false);
    if ((a == nullptr && b == nullptr) || gate_up_is_gone()) return;
    const Cause* const cause = a == nullptr   ? &cause::half_shared_down_b
                               : b == nullptr ? &cause::half_shared
                                              : &cause::shared_outer_flag;
    for (const Staged* staged : {a, b})
      if (staged != nullptr)
        c.adapter.add_event(cause, Effect::partial,
                            "one factor for all experts, and the server gives it to expert 0 only",
                            staged->sources());
  }

  // Because it was refused before.
  bool gate_up_is_gone() const {
    const int index = pool.index_of("gate_up_proj_moe");
    return index < 0 || buffers.of(index, true).empty();
  }
};

}  // namespace

std::vector<const Staged*> TempBuffer::all() const {
  std::vector<const Staged*> out;
  if (tensor != nullptr) out.push_back(tensor);
  for (const auto& [expert, staged] : experts) out.push_back(staged);
  return out;
}

std::vector<int32_t> TempBuffer::sources() const { return sources_of(all()); }

void TempBuffer::set(const Staged& value) {
  *this = TempBuffer();
  tensor = &value;
}

const Staged* TempBuffer::set(int64_t expert, const Staged& value) {
  const auto [at, is_new] = at_.emplace(expert, experts.size());
  if (is_new) {
    experts.emplace_back(expert, &value);
    return nullptr;
  }
  const Staged* before = experts[at->second].second;
  experts[at->second].second = &value;
  return before;
}

TempBuffers sort_into_buffers(const CopyContext& context, LayerWeights& weights, const Pool& pool,
                              const TargetMatcher& matcher) {
  const std::vector<TempBuffer> none(pool.buffers.size());
  Sorter sorter{context, pool, matcher, {none, none}};
  weights.each([&](const Staged& entry) { sorter.place(entry); });
  return std::move(sorter.out);
}

void refuse_unmatched(const CopyContext& context, const Staged& entry, const NameSet& targets) {
  CpuAdapter& adapter = context.adapter;
  const Diagnosis why = cause_of_unmatched(adapter, entry, targets, context.features);
  if (adapter.raised_before(why.cause, entry.sources())) return;
  adapter.raise({why.cause, stage::kLoad, "ValueError",
                 fmt::format("Cannot find target module name for {} in {}", in_text(entry.name),
                             py_set(targets)),
                 why.detail, true},
                entry.sources());
}

void check_pairs(const CopyContext& context, const Pool& pool, int layer,
                 const TempBuffers& buffers) {
  PairChecker{context, pool, buffers}.check(layer);
}

}  // namespace moelora::sglang
