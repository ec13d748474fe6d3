#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/numeric/moe_layer.h"

namespace moelora::test {

// A layer made up for a test: BF16 base and factors, random but the same on every machine.
struct LayerCase {
  std::string name;
  int64_t experts = 5, top_k = 3, width = 96, intermediate = 40;
  int64_t rank = 3, down_rank = 3;  // 0: no LoRA there
  bool shared_outer = false;        // gate's and up's A, down's B
  bool biases = false;
  MoeLayer layer = {};  // activation and what follows; the sizes are filled in by made_layer()
};

struct MadeLayer {
  MoeLayer layer;
  MoeWeights weights;
};
MadeLayer made_layer(const LayerCase& c, uint64_t seed = 1);

// The same layer with every weight in memory, so that reading it again costs little.
MadeLayer held_in_memory(const MadeLayer& made);

// One pair of factors, all experts; `shared_a`, `shared_b`: one matrix for all. Scale 2.
ExpertPair made_pair(const LayerCase& c, Projection p, uint64_t seed, bool shared_a, bool shared_b);

// The experts' LoRA of `layers` such layers, each with factors of its own; in canonical form.
Adapter made_adapter(const LayerCase& c, int layers, uint64_t seed = 1);

// Distinct experts a token, weights that sum to 1; every value a BF16 value.
Routing made_routing(const LayerCase& c, int64_t tokens, uint64_t seed = 2);
std::vector<double> made_tokens(const LayerCase& c, int64_t tokens, uint64_t seed = 3);

// Two models whose speed is measured: their sizes, a rank, their activation.
LayerCase gpt_oss_20b();
LayerCase qwen3_30b();

// The cases of all activations, gated and not, with and without shared factors and biases.
std::vector<LayerCase> ugly_cases();

double relative_error(const std::vector<double>& found, const std::vector<double>& expected);

}  // namespace moelora::test
