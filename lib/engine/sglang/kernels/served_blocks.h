#pragma once

#include <vector>

#include "lib/engine/buffers.h"

namespace moelora::sglang {

// Engine::blocks: what the kernels make of the buffers that a rank holds (pool_values.h). Modules
// are called as in the hub's files. Dense ones are multiplied by lora_alpha / r in the kernel
// (F32), each part of a fused one with its own r rows of A; experts' B is scaled already. Buffers
// of zeros make no blocks.
std::vector<ServedBlock> served_blocks(const BufferRequest& request, const RankBuffers& held);

}  // namespace moelora::sglang
