#pragma once

#include "lib/engine/buffers.h"
#include "lib/engine/vllm/load/load.h"

namespace moelora::vllm {

// Every buffer of every module of the server on one rank after the load (module_buffers), by name:
// what placements say of the values of adapter.file, zero elsewhere. Lazy.
// REQUIRES that the load was not refused and that `values` has all tensors of adapter.file.
TensorMap filled_buffers(const Server& server, const Adapter& adapter, const RankLoad& load,
                         const TensorMap& values);

// What ends a load on this rank, in the server's order: the server does not start, or the load
// raises. nullopt where the adapter is served.
std::optional<Refusal> refusal_of(const Server& server, const RankLoad& load);

// Engine::fill.
RankBuffers fill(const BufferRequest& request);

}  // namespace moelora::vllm
