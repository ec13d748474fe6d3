#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/config/adapter_config.h"

namespace moelora {

// A key that PEFT's ParamWrapper refuses: "lora.ParamWrapper does not work with ...".
struct ParamsConflict {
  std::string_view key;      // of adapter_config.json
  std::string found;         // "is 0.05"
  std::string_view refuses;  // how PEFT's text goes on: "lora_dropout != 0."
};

// Those of a config with target_parameters; none without.
std::vector<ParamsConflict> params_conflicts(const AdapterConfig& config);

}  // namespace moelora
