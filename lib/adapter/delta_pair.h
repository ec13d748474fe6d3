#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/adapter/adapter.h"
#include "lib/base/low_rank.h"

namespace moelora {

// One low-rank pair: delta = scale * B A, A [r, in], B [out, r].
struct Delta {
  Tensor a, b;
  double scale = 0;
};

// The place of a delta, the same in every layout.
struct DeltaKey {
  std::string module;   // "model.layers.0.self_attn.q_proj", or an expert's projection "gate_proj"
  int layer = -1;       // of an expert's projection
  int64_t expert = -1;  // -1: no routed expert
  friend auto operator<=>(const DeltaKey&, const DeltaKey&) = default;
};
std::string to_string(const DeltaKey& key);  // "layer 3 expert 7 gate_proj"

using Deltas = std::map<DeltaKey, Delta>;

// Every pair of an adapter. gate and up are split where the row order of a fused pair is known.
Deltas deltas_of(Adapter adapter);

// The values of a factor in memory, row-major: of lora_A and of lora_B.
FactorValues rows_of(const Tensor& a, const std::byte* values);
FactorValues columns_of(const Tensor& b, const std::byte* values);

// Frobenius norms, from the factors, which are read.
double delta_norm(const Delta& delta);
// Square root of the sum of their squares, on `threads` (0: all).
double delta_norm(const std::vector<Delta>& deltas, int threads);

}  // namespace moelora
