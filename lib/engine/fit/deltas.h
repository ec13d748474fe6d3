#pragma once

#include <string>
#include <vector>

#include "lib/adapter/adapter.h"

namespace moelora {

// The low-rank pair of an embedding, which PEFT names lora_embedding_A [r, V] and lora_embedding_B
// [H, r] and a canonical adapter keeps among its extras.
struct EmbeddingPair {
  std::string module;  // "model.embed_tokens"
  std::string a, b;    // keys in Adapter::extras
  Scaling scaling;
};

// In order of module. Throws Error for half a pair and for ranks that do not agree.
std::vector<EmbeddingPair> embedding_pairs(const Adapter& adapter);

// One low-rank delta: scale * B A.
struct Delta {
  Tensor a, b;
  double scale = 1;
};

// ||scale B A||, Frobenius, in double: sqrt(scale^2 tr((B^T B)(A A^T))); the delta itself is never
// formed. Reads the factors.
double delta_norm(const Delta& delta);

// Square root of the sum of their squares, on `threads` (0: all).
double delta_norm(const std::vector<Delta>& deltas, int threads);

// Every delta of an adapter's routed experts. A factor that all experts share is in each of them.
std::vector<Delta> expert_deltas(const Adapter& adapter);

}  // namespace moelora
