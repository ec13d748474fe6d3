#pragma once

#include <string>

#include "lib/adapter/adapter_config.h"
#include "lib/engine/engine.h"
#include "lib/model/model_spec.h"

namespace moelora {

// What PEFT and transformers 5 do with routed experts (peft/tuners/lora/layer.py,
// peft/utils/transformers_weight_conversion.py; transformers conversion_mapping.py).

// transformers 5 holds these experts as batched parameters although the hub has a matrix an expert.
bool is_fused_in_memory(const ModelSpec& spec);

// PEFT >= 0.19 turns a per-expert adapter of this model into one for the batched parameters.
bool peft_converts(const ModelSpec& spec);

// The side that this release of PEFT puts lora_A on when it wraps the experts of `spec`, as
// transformers 5 holds them.
Roles peft_roles(const ModelSpec& spec, const EngineChoice& peft);

// Whether this run of PEFT is `release` or newer.
bool peft_has(const EngineChoice& peft, std::string_view release);

// "0.20.1" of "0.20.1.dev0@5d602fd"; "" of what is no version.
std::string release_of(const std::string& peft_version);

}  // namespace moelora
