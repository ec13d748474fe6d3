#pragma once

#include <string>
#include <string_view>

#include "lib/adapter/config/adapter_config.h"
#include "lib/engine/engine.h"
#include "lib/model/model_spec.h"

namespace moelora {

// What PEFT and transformers 5 do with routed experts when they create or load an adapter
// (peft/tuners/lora/layer.py, peft/utils/transformers_weight_conversion.py; transformers
// conversion_mapping.py). What differs between families is data: ModelSpec::peft.

// transformers 5 holds these experts as batched parameters although the hub has numbered ones.
bool is_fused_in_memory(const ModelSpec& spec);

// "0.20.1" of "0.20.1.dev0@5d602fd", as adapter_config.json says it; "" of what is not a version.
std::string release_of(const std::string& peft_version);

}  // namespace moelora
