#include "lib/engine/sglang/copy/buckets.h"

#include <fmt/format.h>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/load/diagnosis.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

constexpr std::string_view kReplaced = "another tensor of the layer takes its place";

class Sorter {
 public:
  Sorter(CpuAdapter& adapter, const Pool& pool, const TargetMatcher& matcher,
         const Features& features)
      : adapter_(adapter), pool_(pool), matcher_(matcher), features_(features) {
    out_.a.resize(pool.buffers.size());
    out_.b.resize(pool.buffers.size());
  }

  LayerBuckets sort(LayerWeights& weights) {
    for (size_t i = 0; i < weights.count(); ++i)
      if (const Staged* entry = weights.at(i)) place(*entry);
    return std::move(out_);
  }

 private:
  void place(const Staged& entry) {
    const int target = matcher_.find(entry.name);
    if (target < 0) return refuse_unmatched(entry);
    const std::string& module = matcher_.targets()[static_cast<size_t>(target)];
    const bool stacked = features_.stacked_experts && entry.rank() == 3;
    const auto expert = expert_of(entry.name);
    if (stacked && contains(entry.name, "shared_experts."))
      lose(entry,
           "SGLang takes 3-D shared experts for its own kind of sink experts and drops them");
    else if (expert)
      place_expert(entry, module + "_moe", *expert);
    else if (stacked && contains(entry.name, "experts"))
      place_tensor(entry, module + "_moe");
    else
      place_tensor(entry, module);
  }

  void refuse_unmatched(const Staged& entry) {
    const Diagnosis why = cause_of_unmatched(adapter_, entry, pool_.request.targets, features_);
    if (adapter_.raised_before(why.cause, entry.sources())) return;
    adapter_.raise({why.cause, stage::kLoad, "ValueError",
                    fmt::format("Cannot find target module name for {} in {}", in_text(entry.name),
                                py_set(pool_.request.targets)),
                    why.detail, true},
                   entry.sources());
  }

  void place_expert(const Staged& entry, const std::string& name, int64_t expert) {
    const int index = pool_.index_of(name);
    if (index < 0)
      return adapter_.raise(
          {&cause::experts_on_dense_layer, stage::kLoad, "KeyError", py_repr(name),
           "numbered expert tensors, and the server has no buffer for experts", true},
          entry.sources());
    Held &a = out_.a[static_cast<size_t>(index)], &b = out_.b[static_cast<size_t>(index)];
    if (a.is_none()) {  // both sides start anew
      lose_all(b);
      b = Held();
      a.is_dict = b.is_dict = true;
    }
    Held& side = entry.is_a() ? a : b;
    if (!side.is_dict) return refuse_mixed(entry);
    if (const Staged* before = side.set(expert, entry)) lose(*before, kReplaced);
  }

  // Assigning to an item of a tensor or of None.
  void refuse_mixed(const Staged& entry) {
    const bool none = !entry.is_a() && out_is_none(entry);
    adapter_.raise(
        {&cause::mixed_layouts, stage::kLoad, "TypeError",
         none ? "'NoneType' object does not support item assignment"
              : "'str' object does not support item assignment",
         "the experts of one projection are stacked in one tensor and numbered in others", true},
        entry.sources());
  }

  bool out_is_none(const Staged& entry) const {
    const int target = matcher_.find(entry.name);
    const int index = pool_.index_of(matcher_.targets()[static_cast<size_t>(target)] + "_moe");
    return out_.b[static_cast<size_t>(index)].is_none();
  }

  void place_tensor(const Staged& entry, const std::string& name) {
    const int index = pool_.index_of(name);
    if (index < 0) return lose_unbuffered(entry);
    Held& side = (entry.is_a() ? out_.a : out_.b)[static_cast<size_t>(index)];
    for (const Staged* before : side.all()) {
      const bool extra = !is_factor(entry.name) && is_factor(before->name);
      adapter_.lose(before->sources(), extra ? &cause::extra_becomes_b : &cause::ignored_tensors,
                    extra ? "SGLang takes another tensor for the B of this module" : kReplaced);
    }
    side.set(entry);
  }

  void lose_unbuffered(const Staged& entry) {
    const bool experts = contains(entry.name, "experts");
    if (experts && entry.rank() == 2)
      adapter_.lose(entry.sources(), &cause::stacked_peft_experts,
                    "a stacked expert parameter as PEFT saves it: SGLang reads it as a dense layer "
                    "that the model does not have, and drops it");
    else
      lose(entry, "the server has no buffer for it: it is dropped");
  }

  void lose_all(const Held& held) {
    for (const Staged* before : held.all()) lose(*before, kReplaced);
  }
  void lose(const Staged& entry, std::string_view detail) {
    adapter_.lose(entry.sources(), &cause::ignored_tensors, detail);
  }

  CpuAdapter& adapter_;
  const Pool& pool_;
  const TargetMatcher& matcher_;
  const Features& features_;
  LayerBuckets out_;
};

}  // namespace

std::vector<const Staged*> Held::all() const {
  std::vector<const Staged*> out;
  if (tensor != nullptr) out.push_back(tensor);
  for (const auto& [expert, staged] : experts) out.push_back(staged);
  return out;
}

void Held::set(const Staged& value) {
  *this = Held();
  tensor = &value;
}

const Staged* Held::set(int64_t expert, const Staged& value) {
  const auto [at, is_new] = at_.emplace(expert, experts.size());
  if (is_new) {
    experts.emplace_back(expert, &value);
    return nullptr;
  }
  const Staged* before = experts[at->second].second;
  experts[at->second].second = &value;
  return before;
}

LayerBuckets sort_into_buckets(CpuAdapter& adapter, LayerWeights& weights, const Pool& pool,
                               const TargetMatcher& matcher, const Features& features) {
  return Sorter(adapter, pool, matcher, features).sort(weights);
}

}  // namespace moelora::sglang
