#pragma once

#include <cstdint>
#include <vector>

#include "lib/forward/model_lora.h"
#include "lib/forward/token_scores.h"
#include "lib/model/base_model.h"

namespace moelora {

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
