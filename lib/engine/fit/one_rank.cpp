// One rank for all, the largest there is: servers read r of the config only. Zero rows of lora_A
// and zero columns of lora_B change no product.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "lib/engine/fit/embeddings.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

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

int64_t round_up(int64_t rank, int64_t multiple) {
  return (rank + multiple - 1) / multiple * multiple;
}

constexpr int64_t kVllmDefaultRank = 16;

void note_max_rank(FitContext& context, int64_t rank) {
  if (!context.is("vllm") || context.options.server.max_lora_rank || rank <= kVllmDefaultRank)
    return;
  context.fitting.notes.push_back(
      fmt::format("start vLLM with --max-lora-rank {} or more: rank {} is above its default {}",
                  vllm_max_rank(rank), rank, kVllmDefaultRank));
}

// The rank the server can use: a multiple of tp where vLLM cuts lora_A by it; before 0.5.11 SGLang
// is right only for the rank that its pool has.
int64_t served_rank(const FitContext& context, int64_t rank) {
  const ServerOptions& server = context.options.server;
  if (context.is("vllm") && server.on("fully-sharded-loras")) return round_up(rank, server.tp);
  const EngineChoice& engine = context.engine();
  if (context.is("sglang") && !engine.version.has(engine.engine->release("0.5.11")))
    return std::max(rank, server.max_lora_rank.value_or(rank));
  return rank;
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

void run(FitContext& context) {
  Adapter& adapter = context.adapter;
  const std::set<int64_t> ranks = ranks_of(adapter);
  if (ranks.empty()) return;
  const AdapterConfig before = adapter.config;
  const int64_t rank = served_rank(context, *ranks.rbegin());
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
  const bool padded = ranks.size() > 1 || rank != *ranks.rbegin();
  if (padded || before.r != rank || before.lora_alpha != scaling.alpha || before.use_rslora)
    context.note(one_rank.name, padded_text(ranks, rank) + written_text(before, scaling));
}

}  // namespace

const FitStep one_rank = {
    "one-rank", "sglang, vllm",
    "ranks that differ: zero rows and columns up to the largest; lora_alpha keeps the scale", run};

}  // namespace moelora::fit

namespace moelora {

int64_t vllm_max_rank(int64_t rank) {
  for (int64_t legal : {8, 16, 32, 64, 128, 256, 320, 512})
    if (rank <= legal) return legal;
  return rank;
}

}  // namespace moelora
