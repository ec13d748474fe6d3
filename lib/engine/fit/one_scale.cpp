// One scale for all. Servers multiply every pair by lora_alpha / r of the config: SGLang knows no
// rsLoRA, and neither it nor vLLM reads rank_pattern or alpha_pattern. What differs goes into
// lora_B.

#include <fmt/format.h>

#include <cmath>
#include <map>

#include "lib/base/scale.h"
#include "lib/engine/fit/embeddings.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

using Counts = std::map<double, int64_t>;

void count(const Adapter& adapter, Counts& out) {
  for (const auto& entry : adapter.dense) ++out[entry.second.scaling.value()];
  for (const EmbeddingPair& pair : embedding_pairs(adapter)) ++out[pair.scaling.value()];
  for (const auto& entry : adapter.experts)
    for (int64_t e = 0; e < adapter.expert_count; ++e)
      if (entry.second.a.has(e)) ++out[entry.second.scaling_of(e).value()];
}

// The scale that most pairs have; of equals the largest. Never 0 where another one is there.
double most_common(const Counts& counts) {
  double best = 0;
  int64_t most = 0;
  for (const auto& [scale, pairs] : counts)
    if (scale != 0 && pairs >= most) best = scale, most = pairs;
  return best;
}

// value / scale; 1 for a difference that only the division of alpha by r made.
double factor(double value, double scale) {
  if (scale == 0) return 1;
  const double out = value / scale;
  return std::fabs(out - 1) < std::ldexp(1, -50) ? 1 : out;
}

// Puts the factors into lora_B, module by module, and keeps account of them.
class Folder {
 public:
  explicit Folder(double scale) : scale_(scale) {}

  void fold(const std::string& name, Tensor& b, double value) {
    const double f = factor(value, scale_);
    if (f == 1) return;
    b = scaler_.scaled(b, f);
    std::vector<std::string>& names = factors_[f];
    if (names.empty() || names.back() != name) names.push_back(name);  // once for all its experts
  }

  void fold(const std::string& name, ExpertPair& pair, int64_t experts) {
    if (pair.b.shared && pair.scaling.size() > 1) {
      pair.b.parts.resize(static_cast<size_t>(experts), pair.b.parts.front());
      pair.b.shared = false;
    }
    for (size_t e = 0; e < pair.b.parts.size(); ++e)
      if (pair.b.parts[e].rank() != 0)
        fold(name, pair.b.parts[e], pair.scaling_of(static_cast<int64_t>(e)).value());
  }

  bool any() const { return !factors_.empty(); }

  // "0.5 (exact) in model.layers.0.self_attn.q_proj and 3 more; 1.5 (rounded once) in ...".
  std::string text() const {
    std::string out;
    for (const auto& [f, names] : factors_)
      out += fmt::format("{}{}{} in {}", out.empty() ? "" : "; ", f,
                         is_power_of_two(f) ? " (exact)" : " (rounded once)", some_of(names));
    return out;
  }

 private:
  double scale_;
  Scaler scaler_;
  std::map<double, std::vector<std::string>> factors_;
};

void run(FitContext& context) {
  Adapter& adapter = context.adapter;
  Counts counts;
  count(adapter, counts);
  if (counts.empty()) return;
  const double scale = context.scale = most_common(counts);
  Folder folder(scale);
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
