#include "lib/engine/sglang/copy/load_to_buffer.h"

#include <fmt/format.h>

#include "lib/engine/sglang/copy/pairs.h"
#include "lib/engine/sglang/load/diagnosis.h"

namespace moelora::sglang {
namespace {

// --lora-strict-loading: what no target takes is refused before anything is copied.
void refuse_skipped(CpuAdapter& adapter, const NameSet& targets, const TargetMatcher& matcher,
                    const Features& features) {
  NameSet skipped;
  std::vector<int32_t> about;
  const Staged* first = nullptr;
  const auto look = [&](LayerWeights& weights) {
    for (size_t i = 0; i < weights.count(); ++i) {
      const Staged* entry = weights.at(i);
      if (entry == nullptr || matcher.find(entry->name) >= 0) continue;
      if (first == nullptr) first = entry;
      skipped.insert(in_text(entry->name));
      const auto sources = entry->sources();
      about.insert(about.end(), sources.begin(), sources.end());
    }
  };
  for (LayerWeights& weights : adapter.layers) look(weights);
  look(adapter.embeddings);
  if (first == nullptr) return;
  const Diagnosis why = cause_of_unmatched(adapter, *first, targets, features);
  adapter.raise(
      {why.cause, stage::kLoad, "ValueError",
       fmt::format("LoRA adapter '{}': {} weight(s) skipped because they did not match "
                   "any target module in {}. Skipped weights: {}. This likely indicates a "
                   "mismatch between the adapter's target modules and the base model "
                   "architecture.",
                   in_text(adapter.name), skipped.size(), py_list(targets), py_list(skipped)),
       why.detail, true},
      about);
}

}  // namespace

void load_to_buffer(const CopyContext& context, std::span<const Pool> pools, bool strict) {
  CpuAdapter& adapter = context.adapter;
  const NameSet& targets = pools.front().request.targets;
  const TargetMatcher matcher(targets);
  if (strict) refuse_skipped(adapter, targets, matcher, context.features);
  for (size_t layer = 0; layer < adapter.layers.size(); ++layer) {
    const LayerBuckets buckets =
        sort_into_buckets(adapter, adapter.layers[layer], pools.front(), matcher, context.features);
    for (const Pool& pool : pools) copy_layer(context, pool, static_cast<int>(layer), buckets);
    judge_pairs(context, pools.front(), static_cast<int>(layer), buckets);
  }
  for (const Pool& pool : pools) copy_embeddings(context, pool);
}

}  // namespace moelora::sglang
