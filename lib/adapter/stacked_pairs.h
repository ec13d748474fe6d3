#pragma once

#include <span>
#include <string>
#include <vector>

#include "lib/adapter/layout.h"

namespace moelora {

// The four tensors per layer of PEFT's target_parameters form say neither which parameter a pair
// belongs to nor which side A is on. This decides both for a whole file, from dims, config and
// flags, or throws an Error that says what is known and which flag decides (facts: PEFT layer.py,
// _inject_parameters).

// One stacked pair: A [E*r, a_dim], B [b_dim, E*r].
struct StackedPair {
  const ExpertTensor* a = nullptr;
  const ExpertTensor* b = nullptr;
  int nesting = 0;  // how many ".base_layer" its name has
  int layer = 0;

  int64_t a_dim() const { return a->tensor.dim(1); }
  int64_t b_dim() const { return b->tensor.dim(0); }
};

// The pairs of one file, in layer order, innermost (most ".base_layer") first within a layer.
// Checks that A and B are both there, 2-D, and agree on E*r.
std::vector<StackedPair> pair_up(std::span<const ExpertTensor> tensors);

struct StackedReading {
  Roles roles = Roles::natural;
  std::vector<Projection> projection;  // of each pair
};

// What the base model calls the expert parameter of a projection: "gate_up_proj" without one.
std::string_view parameter_name(const ModelSpec* spec, Projection projection);

// The path of that parameter, which PEFT's patterns are matched with; `stem`: that of the layer's
// factors.
std::string parameter_path(const ModelSpec* spec, std::string stem, Projection projection);

StackedReading read_stacked_pairs(std::span<const StackedPair> pairs, const ReadContext& context);

}  // namespace moelora
