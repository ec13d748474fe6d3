#pragma once

#include <cstdint>
#include <vector>

#include "lib/base/progress.h"
#include "lib/forward/model_lora.h"
#include "lib/forward/precision.h"
#include "lib/model/base_model.h"

namespace moelora {

struct ScoreOptions {
  Precision precision = Precision::f32;
  double temperature = 1;  // logits are divided by it
  int top = 0;             // how many of the most probable tokens at each position
  int threads = 0;         // 0: all cores
  // Of activations at most, beside one row of them for each token; a sequence is never cut, so that
  // a long one may need more. Less memory reads weights more often.
  uint64_t memory = uint64_t{2} << 30;
  JobControl job = {};
};

// One sequence: logprobs[i] = log p(token i + 1 | tokens 0..i), in nats.
struct TokenScores {
  struct Top {
    int64_t token;
    double logprob;
  };
  std::vector<double> logprobs;
  std::vector<std::vector<Top>> top;  // best first; empty unless asked for
};

// Teacher-forced log-probabilities of `sequences` under a base model and, where it is not null, an
// adapter on it, out of their files alone. Weights are read layer by layer, once for all sequences;
// beside one layer's, all tokens' activations are in memory. Sequences of fewer than two tokens
// have no scores. The result does not depend on the threads. Throws Error before any weight is
// read: a family whose computation is not described, a base without weights, a token outside the
// vocabulary, a sequence longer than the model's positions; later, where a weight is missing or
// does not fit.
std::vector<TokenScores> score_tokens(const BaseModel& base, const Adapter* adapter,
                                      const std::vector<std::vector<int64_t>>& sequences,
                                      const ScoreOptions& options = {});
// The same with what a server makes of an adapter (lib/compare/served_pairs.h), or part of it.
std::vector<TokenScores> score_tokens(const BaseModel& base, const ModelLora& lora,
                                      const std::vector<std::vector<int64_t>>& sequences,
                                      const ScoreOptions& options = {});

}  // namespace moelora
