#pragma once

#include <vector>

#include "lib/engine/buffers.h"
#include "lib/engine/served_adapter.h"
#include "lib/engine/sglang/pool/pool.h"
#include "lib/engine/sglang/server.h"

namespace moelora::sglang {

// What a rank holds of adapter `index` after its first use, in buffers that were zero: the writes
// of the load with their values. There is a buffer for every module of the model's class that LoRA
// wraps: "layers.0.qkv_proj.A", "layers.3.gate_up_proj_moe.B", "lm_head.A"; shapes as pool.h says.
// `values`: the tensors of served.files, in their order. Tensors that share a source share its
// cast, so that the writer still reads each source once.
//
// Values are cast as SGLang copies them into its BF16 pool. lora_B of experts is first multiplied
// on the CPU (lora/mem_pool.py, `w * lora_adapter.scaling`): by the factor in F32 (F64 for F64),
// rounded once to the type of the file, so that F16 rounds twice and overflows to infinity; BF16
// rounds once. Then all is cast to BF16: F64 by way of F32, every NaN to 0x7FFF as the GPU does.
//
// REQUIRES: the server refused nothing, and adapter `index` was read of `served`. Throws Error for
// a buffer beyond 2^48 elements and for a type that is not a float type.
TensorMap fill_pool(const Server& server, size_t index, const Pool& pool,
                    const ServedAdapter& served, const std::vector<TensorMap>& values);

// Engine::fill.
RankBuffers fill_rank(const BufferRequest& request);

}  // namespace moelora::sglang
