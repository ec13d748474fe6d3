// One scale for all. Servers multiply every pair by lora_alpha / r of the config: SGLang knows no
// rsLoRA, and neither it nor vLLM reads rank_pattern or alpha_pattern. What differs goes into
// lora_B.

#include <fmt/format.h>

#include "lib/engine/fit/embeddings.h"
#include "lib/engine/fit/scale_folder.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

void count(const Adapter& adapter, ScaleCounts& out) {
  for (const auto& entry : adapter.dense) ++out[entry.second.scaling.value()];
  for (const EmbeddingPair& pair : embedding_pairs(adapter)) ++out[pair.scaling.value()];
  for (const auto& entry : adapter.experts)
    for (int64_t e = 0; e < adapter.expert_count; ++e)
      if (entry.second.a.has(e)) ++out[entry.second.scaling_of(e).value()];
}

void run(FitContext& context) {
  Adapter& adapter = context.adapter;
  ScaleCounts counts;
  count(adapter, counts);
  if (counts.empty()) return;
  const double scale = context.scale = most_common(counts);
  ScaleFolder folder(scale);
  const Scaling one{1, scale, false};  // exact at any rank that `one-rank` settles on
  for (auto& [module, pair] : adapter.dense) {
    folder.fold(module, pair.b, pair.scaling.value());
    pair.scaling = one;
  }
  for (const EmbeddingPair& pair : embedding_pairs(adapter))
    folder.fold(pair.module, adapter.extras.at(pair.b).tensor, pair.scaling.value());
  for (auto& [key, pair] : adapter.experts) {
    folder.fold(fmt::format("{}.{}", adapter.stem(key.layer), projection_name(key.projection)),
                pair, adapter.expert_count);
    pair.scaling = {one};
  }
  if (folder.any())
    context.note(
        one_scale.name,
        fmt::format("{} multiplies every pair by lora_alpha / r, which is {} for most: lora_B "
                    "scaled by {}",
                    context.title(), scale, folder.text()));
}

}  // namespace

const FitStep one_scale = {
    "one-scale", "sglang, vllm",
    "rsLoRA, rank_pattern and alpha_pattern: the most common scale becomes lora_alpha / r, what "
    "differs from it goes into lora_B",
    run};

}  // namespace moelora::fit
