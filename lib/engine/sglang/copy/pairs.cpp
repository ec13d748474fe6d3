#include "lib/engine/sglang/copy/pairs.h"

#include <fmt/format.h>

#include <unordered_set>

#include "lib/engine/sglang/causes.h"

namespace moelora::sglang {
namespace {

class PairJudge {
 public:
  PairJudge(const CopyContext& context, const Pool& pool) : c_(context), pool_(pool) {}

  void judge(int layer, const LayerBuckets& buckets) {
    for (const WrappedModule& wrapped : c_.wrapping.layers[static_cast<size_t>(layer)]) {
      const int index = pool_.index_of(wrapped.buffer);
      if (index < 0) continue;
      const auto at = static_cast<size_t>(index);
      judge_pair(pool_.buffers[at], buckets.a[at], buckets.b[at]);
    }
    judge_outer(buckets);
  }

 private:
  void judge_pair(const Buffer& buffer, const Held& a, const Held& b) {
    if (a.empty() != b.empty()) return lone(a.empty() ? b : a);
    if (!buffer.moe || a.empty()) return;
    if (a.tensor == nullptr && b.tensor == nullptr) {
      lone_experts(a, b);
      lone_experts(b, a);
      if (!shared_here(buffer, true) && !shared_here(buffer, false)) missing_experts(a);
    } else {
      too_few(buffer, a, true);
      too_few(buffer, b, false);
    }
  }

  bool shared_here(const Buffer& buffer, bool is_a) const {
    return pool_.request.shared_outer &&
           buffer.name == (is_a ? "gate_up_proj_moe" : "down_proj_moe");
  }

  void lone(const Held& held) {
    for (const Staged* staged : held.all()) add_lone(*staged);
  }

  // A partner that is there, but refused, is told already.
  void add_lone(const Staged& staged) {
    for (int32_t source : staged.sources()) {
      if (c_.adapter.refused[static_cast<size_t>(source)] || c_.adapter.partner_of(source) >= 0)
        continue;
      Journal::Entry& entry = c_.adapter.journal.entry(&cause::orphan_factor, Effect::unused);
      entry.detail = "a factor without its partner: the server multiplies it with zeros";
      entry.sources.push_back(source);
    }
  }

  void lone_experts(const Held& held, const Held& other) {
    std::unordered_set<int64_t> partners;
    for (const auto& [expert, staged] : other.experts) partners.insert(expert);
    for (const auto& [expert, staged] : held.experts)
      if (partners.count(expert) == 0) add_lone(*staged);
  }

  void missing_experts(const Held& held) {
    const auto count = static_cast<int64_t>(held.experts.size());
    if (count < c_.model.experts) partial(held, count);
  }

  void too_few(const Buffer& buffer, const Held& held, bool is_a) {
    if (held.tensor == nullptr || held.tensor->rank() != 3 || shared_here(buffer, is_a)) return;
    const int64_t count = held.tensor->shape[0];
    if (count > 1 && count < c_.model.experts) partial(held, count);
  }

  void partial(const Held& held, int64_t count) {
    Journal::Entry& entry = c_.adapter.journal.entry(&cause::missing_experts, Effect::partial);
    if (entry.is_new())
      entry.detail = fmt::format("factors for {} of {} experts: the others are served without any",
                                 count, c_.model.experts);
    for (const Staged* staged : held.all()) entry.add(staged->sources());
  }

  const Staged* stack_of_one(const LayerBuckets& buckets, std::string_view name, bool is_a) const {
    const int index = pool_.index_of(name);
    if (index < 0) return nullptr;
    const auto at = static_cast<size_t>(index);
    const Staged* staged = (is_a ? buckets.a[at] : buckets.b[at]).tensor;
    return staged != nullptr && staged->rank() == 3 && staged->shape[0] == 1 ? staged : nullptr;
  }

  // A factor that all experts share, in a pool that holds one for each.
  void judge_outer(const LayerBuckets& buckets) {
    if (pool_.request.shared_outer || c_.model.experts == 1) return;
    const Staged* a = stack_of_one(buckets, "gate_up_proj_moe", true);
    const Staged* b = stack_of_one(buckets, "down_proj_moe", false);
    if ((a == nullptr && b == nullptr) || gate_up_is_gone(buckets)) return;
    const Cause* const cause = a == nullptr   ? &cause::half_shared_down_b
                               : b == nullptr ? &cause::half_shared
                                              : &cause::shared_outer_flag;
    Journal::Entry& entry = c_.adapter.journal.entry(cause, Effect::partial);
    entry.detail = "one factor for all experts, and the server gives it to expert 0 only";
    for (const Staged* staged : {a, b})
      if (staged != nullptr) entry.add(staged->sources());
  }

  // Because it was refused before.
  bool gate_up_is_gone(const LayerBuckets& buckets) const {
    const int index = pool_.index_of("gate_up_proj_moe");
    return index < 0 || buckets.a[static_cast<size_t>(index)].empty();
  }

  const CopyContext& c_;
  const Pool& pool_;
};

}  // namespace

void judge_pairs(const CopyContext& context, const Pool& pool, int layer,
                 const LayerBuckets& buckets) {
  PairJudge(context, pool).judge(layer, buckets);
}

}  // namespace moelora::sglang
