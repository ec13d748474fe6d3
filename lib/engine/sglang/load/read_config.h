#pragma once

#include "lib/engine/served_adapter.h"
#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/load/cpu_adapter.h"
#include "lib/engine/sglang/model/model_class.h"
#include "lib/engine/sglang/pool/pool.h"

namespace moelora::sglang {

// LoRAConfig and validate_new_adapter(): the config's keys, added tokens, DoRA, and, once there is
// a pool, rank and targets. `pool` is null at start-up.
CpuAdapter read_config(const ServedAdapter& served, const ModelClass& model,
                       const Features& features, const PoolRequest* pool);

// What target_modules must be at later steps. False: refused.
// get_normalized_target_modules(), which runs for every tensor: something to iterate over.
bool check_iterable_targets(CpuAdapter& adapter);
// init_lora_shapes(): a list to infer anything from, and within the command line's where that names
// some.
bool check_listed_targets(CpuAdapter& adapter);
bool check_targets_within(CpuAdapter& adapter, const NameSet& targets);

}  // namespace moelora::sglang
