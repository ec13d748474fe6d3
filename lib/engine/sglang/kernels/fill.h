#pragma once

#include "lib/engine/sglang/kernels/pool_values.h"
#include "lib/engine/sglang/server.h"

namespace moelora::sglang {

// What a rank holds of adapter `index` after its first use, in buffers that were zero: the writes
// of the load with their values. There is a buffer for every module of the model's class that LoRA
// wraps: "layers.0.qkv_proj.A", "layers.3.gate_up_proj_moe.B", "lm_head.A"; shapes as pool.h says.
// REQUIRES: the server refused nothing. Throws Error for a buffer beyond 2^48 elements.
TensorMap fill_pool(const Server& server, size_t index, const Pool& pool, PoolValues& values);

}  // namespace moelora::sglang
