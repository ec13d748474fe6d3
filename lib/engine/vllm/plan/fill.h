#pragma once

#include <optional>

#include "lib/base/source.h"
#include "lib/base/tensor.h"
#include "lib/engine/buffers.h"
#include "lib/engine/vllm/load/load.h"
#include "lib/engine/vllm/server/server.h"

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

// Values as torch computes them when a server loads an adapter: bit for bit, and infinities where
// torch makes some (lib/base/cast.h and scale.h round once and refuse them).

// A tensor's elements, row-major, as one source; its own source where it is the whole of one.
SourcePtr flat_source(const Tensor& tensor);

// tensor.to(BF16 or F16). Every type goes through a float, F64 too: rounded twice. Throws Error for
// types that torch does not hold one element a byte or more of (F4, F6, F8_E8M0 and complex).
SourcePtr torch_cast(SourcePtr source, DType to);

// `tensor *= factor` with a Python float, of BF16 or F16: the product of two floats, rounded to a
// float and then to the type. `source` itself where the factor is 1.
SourcePtr torch_product(SourcePtr source, double factor);

}  // namespace moelora::vllm
