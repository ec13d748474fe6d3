#pragma once

#include "lib/io/json_value.h"

namespace moelora {

// Whether an adapter_config.json is that of an MLX adapter, which mlx-lm writes under the same
// name: lora_parameters and fine_tune_type, none of PEFT's keys.
inline bool is_mlx_config(const Json& config) {
  return config.is(Json::Kind::object) && config.find("r") == nullptr &&
         config.find("lora_parameters") != nullptr;
}

// Whether a config says what PEFT's must say.
inline bool has_peft_keys(const Json& config) {
  return config.find("r") != nullptr && config.find("lora_alpha") != nullptr;
}

}  // namespace moelora
