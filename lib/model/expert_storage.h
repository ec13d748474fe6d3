#pragma once

#include <string>
#include <utility>
#include <vector>

#include "lib/model/model_spec.h"

namespace moelora {

// What a storage calls one projection, e.g. {up, "w3"}.
struct StoredProjection {
  Projection projection;
  std::string name;
};

// The projections that are stored apart, gate and up before down; a fused gate_up is one.
std::vector<StoredProjection> stored_projections(const ExpertStorage& storage);

// Storage with a 2-D weight an expert: the hub's own where it is such, else
// STEM.{e}.gate_proj|up_proj|down_proj below the in-memory stem.
ExpertStorage per_expert_storage(const ModelSpec& spec);

// Storage with batched parameters: the hub's own where it is such (gpt-oss, Llama 4, Qwen3-VL,
// Granite), else the in-memory one of transformers 5.
ExpertStorage fused_storage(const ModelSpec& spec);

// "model.layers.{layer}" of "model.layers.{layer}.mlp.experts".
std::string layer_stem(const ModelSpec& spec);

// The layer number of "model.layers.7.mlp.experts.gate_up_proj" for a stem with "{layer}", and what
// follows the stem and its dot; layer -1 when the name does not begin with the stem.
std::pair<int, std::string> split_stem(const std::string& name, const std::string& stem);

}  // namespace moelora
