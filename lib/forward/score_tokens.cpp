#include "lib/forward/score_tokens.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/progress_meter.h"
#include "lib/forward/head.h"
#include "lib/forward/model_plan.h"
#include "lib/forward/rope.h"

namespace moelora {
namespace {

Batch batch_of(const std::vector<std::vector<int64_t>>& sequences) {
  Batch out;
  for (const std::vector<int64_t>& tokens : sequences) {
    out.tokens.insert(out.tokens.end(), tokens.begin(), tokens.end());
    out.starts.push_back(static_cast<int64_t>(out.tokens.size()));
  }
  return out;
}

void check_tokens(const Batch& batch, const ModelSpec& spec) {
  for (int64_t s = 0; s < batch.sequences(); ++s)
    for (int64_t i = 0; i < batch.length(s); ++i) {
      const int64_t token = batch.tokens[static_cast<size_t>(batch.first(s) + i)];
      if (token < 0 || token >= spec.vocab)
        throw Error(
            fmt::format("sequence {} position {}", s, i),
            fmt::format("token {} is not in the model's vocabulary of {}", token, spec.vocab),
            "score with the model whose tokenizer made the ids");
    }
}

// What the model was made for; RoPE that is scaled reaches further than the positions that some
// configs still give.
void check_length(const Batch& batch, const BaseModel& base) {
  const FamilySection family(base);
  const auto positions = family.config("max_position_embeddings");
  if (!positions) return;
  const double most = config_number(*positions) * rope_stretch(family);
  if (static_cast<double>(batch.longest()) <= most) return;
  throw Error("tokens",
              fmt::format("a sequence has {} tokens, more than the model's {:.0f} positions",
                          batch.longest(), most),
              "cut the sequence");
}

// Rows of the embedding, read one by one: a vocabulary is large and a prompt short.
template <class T>
Matrix<T> embed(const ModelPlan& plan, const ModelWeights& weights, const Batch& batch) {
  const Tensor table = weights.embedding();
  Matrix<T> h(static_cast<int64_t>(batch.tokens.size()), table.dim(1));
  for (int64_t i = 0; i < h.rows(); ++i)
    h.row(i) = read_matrix<T>(table.slice(0, batch.tokens[static_cast<size_t>(i)], 1)).row(0);
  if (const auto lora = weights.embedding_lora()) {
    const Matrix<T> a = read_matrix<T>(lora->a), b = read_matrix<T>(lora->b);
    for (int64_t i = 0; i < h.rows(); ++i)
      h.row(i) += static_cast<T>(lora->scale) *
                  (b * a.col(batch.tokens[static_cast<size_t>(i)])).transpose();
  }
  return h * static_cast<T>(plan.embedding_scale());
}

// Sequences that go through a layer together, with what its layers hand on.
template <class T>
struct Group {
  Batch batch;
  int64_t row;  // of the first token among all
  Carried<T> carried;
};

// Groups whose activations fit: some ten matrices of the widest Linear's outputs for each token.
template <class T>
std::vector<Group<T>> groups_of(const Batch& batch, const ModelSpec& spec, uint64_t memory) {
  int64_t widest = spec.hidden;
  for (const LinearSpec& linear : spec.linears)
    if (linear.layer >= 0) widest = std::max({widest, linear.out, linear.in});
  const auto token = static_cast<uint64_t>(10 * widest) * sizeof(T);
  const auto most = static_cast<int64_t>(memory / token);
  std::vector<Group<T>> out;
  for (int64_t s = 0; s < batch.sequences();) {
    int64_t count = 1;
    while (s + count < batch.sequences() && batch.first(s + count + 1) - batch.first(s) <= most)
      ++count;
    out.push_back({batch.part(s, count), batch.first(s), {}});
    s += count;
  }
  return out;
}

template <class T>
std::vector<TokenScores> score_as(const BaseModel& base, const ModelLora& lora, const Batch& batch,
                                  const ScoreOptions& options) {
  const ModelPlan plan(base, batch.longest());
  const ModelWeights weights(base, lora);
  const uint64_t half = options.memory / 2;
  std::vector<Group<T>> groups = groups_of<T>(batch, base.spec, half);
  // In bytes of weights, of which each layer is taken to have as many, and so is the head.
  const uint64_t bytes = weights.bytes();
  const uint64_t step = bytes / static_cast<uint64_t>(base.spec.layers + 1);
  ProgressMeter meter("computing", bytes, options.job);
  const PassOptions within{options.threads, half, options.precision == Precision::bf16};
  Matrix<T> h = embed<T>(plan, weights, batch);
  if (within.rounds) round_to_bf16(h);
  for (int layer = 0; layer < base.spec.layers; ++layer) {
    for (Group<T>& group : groups) {
      options.job.check();
      const LayerPass<T> pass(weights, plan.norm(), group.batch, group.carried, layer, within);
      const auto tokens = static_cast<int64_t>(group.batch.tokens.size());
      Matrix<T> part = h.middleRows(group.row, tokens);
      plan.run_layer(pass, part);
      h.middleRows(group.row, tokens) = part;
    }
    meter.add(step);
  }
  auto out = score_hidden(plan, weights, batch, h, options);
  weights.refuse_unread();
  meter.add(bytes - step * static_cast<uint64_t>(base.spec.layers));
  return out;
}

}  // namespace

std::vector<TokenScores> score_tokens(const BaseModel& base, const ModelLora& lora,
                                      const std::vector<std::vector<int64_t>>& sequences,
                                      const ScoreOptions& options) {
  const Batch batch = batch_of(sequences);
  FamilySection{base};  // a family that is not described is refused before anything else
  check_tokens(batch, base.spec);
  check_length(batch, base);
  return options.precision == Precision::f64 ? score_as<double>(base, lora, batch, options)
                                             : score_as<float>(base, lora, batch, options);
}

std::vector<TokenScores> score_tokens(const BaseModel& base, const Adapter* adapter,
                                      const std::vector<std::vector<int64_t>>& sequences,
                                      const ScoreOptions& options) {
  return score_tokens(base, adapter == nullptr ? ModelLora() : lora_of(*adapter, base.spec),
                      sequences, options);
}

}  // namespace moelora
