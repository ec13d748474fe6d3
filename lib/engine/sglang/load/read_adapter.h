#pragma once

#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/load/cpu_adapter.h"
#include "lib/engine/sglang/pool/pool.h"

namespace moelora::sglang {

// LoRAConfig and validate_new_adapter(): the config's keys, added tokens, DoRA, and, once there is
// a pool, rank and targets. `limits` is null at start-up.
CpuAdapter read_config(const ServedAdapter& served, const ModelClass& model,
                       const Features& features, const PoolLimits* limits);

// LoRAAdapter.initialize_weights() up to normalisation: which files are read, and which tensor goes
// to which layer.
void read_weights(CpuAdapter& adapter, const ServedAdapter& served, const ModelClass& model);

}  // namespace moelora::sglang
