#pragma once

#include <map>
#include <string>

#include "lib/adapter/delta_pair.h"
#include "lib/model/model_spec.h"

namespace moelora {

// What an adapter adds to a base model: deltas by meant_deltas()'s keys, and what is beside them
// (saved modules, DoRA's magnitudes, LoRA biases) by name. A server's has deltas alone.
struct ModelLora {
  Deltas deltas;
  std::map<std::string, Extra> extras;
};
ModelLora lora_of(const Adapter& adapter, const ModelSpec& spec);

}  // namespace moelora
