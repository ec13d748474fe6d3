#pragma once

#include <cstdint>
#include <vector>

#include "lib/base/progress.h"
#include "lib/forward/precision.h"

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

}  // namespace moelora
