#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/io/json.h"
#include "lib/model/model_spec.h"

namespace moelora::packed {

// One of PEFT's stacked pairs: A [E*r, a], B [b, r*E] of a bare Parameter [E, ..].
struct StackedPair {
  int layer = 0, nesting = 0;
  size_t a = 0, b = 0;  // indices of its tensors
  int64_t a_dim = 0, b_dim = 0, rows = 0;
  std::string_view stem;  // "model.layers.3.mlp.experts"
};

// How stacked pairs are to be read where the adapter's own markers do not say.
struct Reading {
  std::optional<bool> expert_major, swapped;
  std::map<std::pair<int, Projection>, bool>
      apart;  // expert_major of a layer's parameter of its own
};

struct StackedForm {
  bool swapped = false;                 // A lies on the output side
  std::vector<Projection> projections;  // one per pair
};

// Which parameter every pair belongs to and which side A is on, decided by the base model's shapes
// (without one by how the shapes of a layer's two pairs depend on each other), by what the config's
// target_parameters and markers say, and by `given`. Nesting counts from the innermost: PEFT wraps
// parameters in the order of the model's definition, old versions of trainers in the alphabet's.
// `pairs` are sorted by layer, innermost first. Throws Error where nothing fits, or where both
// sides do and nothing decides.
StackedForm resolve_stacked(std::span<const StackedPair> pairs, const Json& config,
                            const ModelSpec* spec, const Reading& given, const std::string& where);

// Takes out of the pairs those of the experts' biases, [E, out] parameters that gpt-oss' class has
// behind each weight, where target_parameters names as many parameters of a module as it has pairs.
// Returns their tensors under names of their own: "STEM.down_proj_bias.lora_A".
std::vector<std::pair<std::string, size_t>> take_biases(std::vector<StackedPair>& pairs,
                                                        const Json& config, const ModelSpec* spec);

// A stacked parameter: its layer, what it is, and its path "model.layers.3.mlp.experts.down_proj".
struct StackedParameter {
  int layer;
  Projection projection;
  std::string path;
};

// Whether columns of its lora_B are e*r + k (true) rather than PEFT's k*E + e.
bool expert_major(const StackedParameter& parameter, const Json& config, const Reading& given,
                  const std::string& where);

}  // namespace moelora::packed
