#pragma once

#include <vector>

#include "lib/engine/buffers.h"
#include "lib/engine/sglang/server.h"

namespace moelora::sglang {

// What options, quantisation and the class do to the experts of adapter `index`, after use():
// kernels that are not there, and those that compute something else.
void check_kernels(Server& server, size_t index, const ServerOptions& options,
                   const Json& base_config);

// Engine::blocks: what the kernels make of the buffers that a rank holds (pool_values.h). Modules
// are called as in the hub's files. Dense ones are multiplied by lora_alpha / r in the kernel
// (F32), each part of a fused one with its own r rows of A; experts' B is scaled already. Buffers
// of zeros make no blocks.
std::vector<ServedBlock> served_blocks(const BufferRequest& request, const RankBuffers& held);

}  // namespace moelora::sglang
