#pragma once

#include <string>
#include <vector>

#include "lib/adapter/adapter.h"
#include "lib/adapter/delta_pair.h"

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

// Every delta of an adapter (deltas_of), and those of its embeddings under their modules' names.
Deltas all_deltas(const Adapter& adapter);

}  // namespace moelora
