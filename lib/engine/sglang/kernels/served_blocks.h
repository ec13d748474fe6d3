#pragma once

#include <vector>

#include "lib/engine/buffers.h"
#include "lib/engine/sglang/kernels/expert_kernel.h"
#include "lib/engine/sglang/pool/pool.h"
#include "lib/engine/sglang/server.h"

namespace moelora::sglang {

// What the kernels make of `buffers`, which a rank holds of adapter `index` (pool_values.h).
// Modules are called as in the hub's files. Dense ones are multiplied by lora_alpha / r in the
// kernel (F32), each part of a fused one with its own r rows of A; experts' B is scaled already.
// Buffers of zeros make no blocks.
std::vector<ServedBlock> pool_blocks(const Server& server, size_t index, const Pool& pool,
                                     const ExpertKernel& kernel, const TensorMap& buffers);

}  // namespace moelora::sglang
