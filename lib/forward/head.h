#pragma once

#include "lib/forward/model_plan.h"
#include "lib/forward/token_scores.h"

namespace moelora {

// The scores out of h [tokens, hidden] after the last layer. Logits are looked at in blocks of the
// vocabulary and never all there.
template <class T>
std::vector<TokenScores> score_hidden(const ModelPlan& plan, const ModelWeights& weights,
                                      const Batch& batch, const Matrix<T>& h,
                                      const ScoreOptions& options);

extern template std::vector<TokenScores> score_hidden(const ModelPlan&, const ModelWeights&,
                                                      const Batch&, const Matrix<float>&,
                                                      const ScoreOptions&);
extern template std::vector<TokenScores> score_hidden(const ModelPlan&, const ModelWeights&,
                                                      const Batch&, const Matrix<double>&,
                                                      const ScoreOptions&);

}  // namespace moelora
