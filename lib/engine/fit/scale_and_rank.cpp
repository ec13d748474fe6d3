#include "lib/engine/fit/scale_and_rank.h"

#include <fmt/format.h>

#include <cmath>
#include <set>

#include "lib/engine/fit/deltas.h"

namespace moelora::fit {
namespace {

double factor(double value, double scale) {
  if (scale == 0) return 1;
  const double out = value / scale;
  return std::fabs(out - 1) < std::ldexp(1, -50) ? 1 : out;
}

// ---- one scale -------------------------------------------------------------------------------

void count(const Adapter& adapter, ScaleCounts& out) {
  for (const auto& entry : adapter.dense) ++out[entry.second.scaling.value()];
  for (const EmbeddingPair& pair : embedding_pairs(adapter)) ++out[pair.scaling.value()];
  for (const auto& entry : adapter.experts)
    for (int64_t e = 0; e < adapter.expert_count; ++e)
      if (entry.second.a.has(e)) ++out[entry.second.scaling_of(e).value()];
}

void even_scales(FitContext& context) {
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

// ---- one rank --------------------------------------------------------------------------------

std::set<int64_t> ranks_of(const Adapter& adapter) {
  std::set<int64_t> out;
  for (const auto& entry : adapter.dense) out.insert(factor_rank(entry.second.a, Side::A));
  for (const EmbeddingPair& pair : embedding_pairs(adapter))
    out.insert(adapter.extras.at(pair.a).tensor.dim(0));
  for (const auto& entry : adapter.experts)
    for (const Tensor& part : entry.second.a.parts)
      if (part.rank() != 0) out.insert(factor_rank(part, Side::A));
  return out;
}

void note_max_rank(FitContext& context, int64_t rank) {
  const EngineFit& fit = context.engine();
  if (fit.legal_ranks.empty() || context.options.server.max_lora_rank || rank <= fit.default_rank)
    return;
  context.changes.notes.push_back(
      fmt::format("start {} with --max-lora-rank {} or more: rank {} is above its default {}",
                  context.title(), max_rank_for(fit, rank), rank, fit.default_rank));
}

void pad(Factor& factor, Side side, int64_t rank) {
  for (Tensor& part : factor.parts)
    if (part.rank() != 0) part = pad_rank(part, side, rank);
}

void set_scale(AdapterConfig& config, const Scaling& scaling) {
  const bool whole =
      std::nearbyint(scaling.alpha) == scaling.alpha && std::fabs(scaling.alpha) < 1e15;
  config.r = scaling.rank;
  config.lora_alpha = scaling.alpha;
  config.json.set("r", Json(scaling.rank));
  config.json.set("lora_alpha",
                  whole ? Json(static_cast<int64_t>(scaling.alpha)) : Json(scaling.alpha));
  config.rank_pattern.clear();
  config.alpha_pattern.clear();
  if (config.use_rslora) config.json.set("use_rslora", Json(false));
  config.use_rslora = false;
}

std::string padded_text(const std::set<int64_t>& ranks, int64_t rank) {
  if (ranks.size() == 1 && *ranks.begin() == rank) return "";
  return fmt::format("ranks {} become {} by zero rows and columns (exact); ",
                     fmt::join(ranks, ", "), rank);
}

std::string written_text(const AdapterConfig& before, const Scaling& after) {
  return fmt::format(
      "r {}, lora_alpha {}{}{} become r {}, lora_alpha {}", before.r, before.lora_alpha,
      before.use_rslora ? ", rsLoRA" : "",
      before.rank_pattern.empty() && before.alpha_pattern.empty() ? "" : ", patterns", after.rank,
      after.alpha);
}

void even_ranks(FitContext& context) {
  Adapter& adapter = context.adapter;
  const std::set<int64_t> ranks = ranks_of(adapter);
  if (ranks.empty()) return;
  const AdapterConfig before = adapter.config;
  int64_t rank = *ranks.rbegin();
  if (const auto served = context.engine().served_rank) rank = served(context.target, rank);
  const Scaling scaling = Scaling::plain(rank, context.scale);
  for (const EmbeddingPair& pair : embedding_pairs(adapter)) {
    Tensor &a = adapter.extras.at(pair.a).tensor, &b = adapter.extras.at(pair.b).tensor;
    a = pad_rank(a, Side::A, rank);
    b = pad_rank(b, Side::B, rank);
  }
  for (auto& entry : adapter.dense) {
    entry.second.a = pad_rank(entry.second.a, Side::A, rank);
    entry.second.b = pad_rank(entry.second.b, Side::B, rank);
    entry.second.scaling = scaling;
  }
  for (auto& entry : adapter.experts) {
    pad(entry.second.a, Side::A, rank);
    pad(entry.second.b, Side::B, rank);
    entry.second.scaling = {scaling};
  }
  set_scale(adapter.config, scaling);
  note_max_rank(context, rank);
  const std::string padded = padded_text(ranks, rank);
  if (!padded.empty() || before.r != rank || before.lora_alpha != scaling.alpha ||
      before.use_rslora)
    context.note(one_rank.name, padded + written_text(before, scaling));
}

}  // namespace

double most_common(const ScaleCounts& counts) {
  double best = 0;
  int64_t most = 0;
  for (const auto& [scale, pairs] : counts)
    if (scale != 0 && pairs >= most) best = scale, most = pairs;
  return best;
}

void ScaleFolder::fold(const std::string& name, Tensor& b, double value) {
  const double f = factor(value, scale_);
  if (f == 1) return;
  b = scaler_.scaled(b, f);
  std::vector<std::string>& names = factors_[f];
  if (names.empty() || names.back() != name) names.push_back(name);  // once for all its experts
}

void ScaleFolder::fold(const std::string& name, ExpertPair& pair, int64_t experts) {
  if (pair.b.shared && pair.scaling.size() > 1) {
    pair.b.parts.resize(static_cast<size_t>(experts), pair.b.parts.front());
    pair.b.shared = false;
  }
  for (size_t e = 0; e < pair.b.parts.size(); ++e)
    if (pair.b.parts[e].rank() != 0)
      fold(name, pair.b.parts[e], pair.scaling_of(static_cast<int64_t>(e)).value());
}

std::string ScaleFolder::text() const {
  std::string out;
  for (const auto& [f, names] : factors_)
    out += fmt::format("{}{}{} in {}", out.empty() ? "" : "; ", f,
                       is_power_of_two(f) ? " (exact)" : " (rounded once)", some_of(names));
  return out;
}

const FitStep one_scale = {
    "one-scale",
    "rsLoRA, rank_pattern and alpha_pattern: the most common scale becomes lora_alpha / r, what "
    "differs from it goes into lora_B",
    even_scales};

const FitStep one_rank = {
    "one-rank",
    "ranks that differ: zero rows and columns up to the largest; lora_alpha keeps the scale",
    even_ranks};

}  // namespace moelora::fit
