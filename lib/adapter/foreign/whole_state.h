#pragma once

#include "lib/adapter/adapter_files.h"

namespace moelora {

// Whether a file holds the weight of a module beside the module's factors, which no adapter's file
// does but for embeddings.
bool holds_base(const TensorMap& tensors);

// Leaves the factors of a file in which a trainer saved a whole model with its adapter (DeepSpeed,
// FSDP, Lightning, state_dict()): the base's own weights, and the names of adapters in names, are
// left out, and a note counts them. Does nothing for a file of an adapter alone. Throws Error where
// the tensors are shards.
void take_factors_out(AdapterFiles& files);

// What to write where weights with factors have no adapter_config.json beside them; "" for others.
std::string config_to_write(const TensorMap& tensors);

}  // namespace moelora
