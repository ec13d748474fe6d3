#pragma once

#include <cstdint>
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

// Compares every delta of both adapters, module by module and expert by expert, row by row: each
// row's products with the rows of lora_A, from their Gram matrix (lib/base/low_rank.h), are equal
// to 1e-11 where the scales' ratio is a power of two, else within what one rounding of each element
// of lora_B explains. What `fitted` has beyond `meant` must be zero. Knows nothing of how repairs
// are made. Both are read whole. Returns how many deltas were compared; throws Error that names the
// first that differs, and its row. REQUIRES: both know their gate_up_order where they hold gate_up
// factors.
int64_t verify_fit(const Adapter& meant, const Adapter& fitted, int threads);

}  // namespace moelora
