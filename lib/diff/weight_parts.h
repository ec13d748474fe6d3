#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "lib/diff/weight_comparison.h"

namespace moelora {

// What the reports of two adapters in weight space have in common.

// Modules of one name: "self_attn.q_proj", "experts.gate_proj".
struct ModuleDistance {
  std::set<int> layers;
  int64_t pairs = 0, identical = 0, within = 0;
  const Distance* worst = nullptr;
  double norm_a = 0, norm_b = 0;  // root of the sum of squares
  double rank_a = 0, rank_b = 0;  // means
  double least_cosine = 1;
};

std::string place_name(const DeltaKey& key);
int place_layer(const DeltaKey& key);  // -1 outside the layers

std::map<std::string, ModuleDistance> modules_of(const WeightComparison& c);  // by name

// The pairs beyond the tolerance.
std::vector<const Distance*> worst_first(const WeightComparison& c);

// "same: all 32 pairs are identical, bit for bit"; lines for people.
std::string verdict_text(const WeightComparison& c);

}  // namespace moelora
