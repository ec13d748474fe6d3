#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "lib/model/model_spec.h"

namespace moelora {

// Keys of mlx-lm's adapter_config.json.
inline constexpr std::string_view kMlxParameters = "lora_parameters", kMlxType = "fine_tune_type";

// Module paths in mlx-lm's model classes and in the hub's files. mlx-lm stacks a layer's routed
// experts in a module of its own and puts text models of multimodal ones under "language_model".

// "model.layers.3.mlp.switch_mlp" and gate_proj of a module that holds all experts of a layer.
struct MlxExperts {
  std::string_view container;  // the path that the hub calls ...experts
  Projection projection;
};
std::optional<MlxExperts> mlx_experts(std::string_view module);

// The hub's path of an mlx-lm module, experts as "...experts.gate_proj". `spec` is null without a
// base model. Throws Error about the tensor `name` where the base has no such module, or where
// families differ and no base says which is meant.
std::string hub_module_of_mlx(std::string_view module, const ModelSpec* spec,
                              const std::string& name);

// mlx-lm's path of a module of the hub's, in either form; of the experts of a layer. Throws Error
// where mlx-lm has no such model, or holds that module as one that takes no LoRA.
std::string mlx_module_of_hub(const std::string& module, const ModelSpec& spec);
std::string mlx_module_of_experts(int layer, Projection projection, const ModelSpec& spec);

}  // namespace moelora
