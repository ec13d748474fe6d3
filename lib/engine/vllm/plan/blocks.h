#pragma once

#include <cstdint>
#include <vector>

#include "lib/engine/buffers.h"
#include "lib/engine/vllm/server/server.h"

namespace moelora::vllm {

// What vLLM's kernels add on one rank (facts in goldens/oracles/vllm.md 3 and the sources of
// layers/fused_moe.py and fused_moe_lora): every slice's B (A x), scale 1, as lora_B is held
// scaled.
//   experts  slice 0 of w13 is added to gate's columns and slice 1 to up's; one slice of stacked
//            experts holds both, interleaved for gpt-oss, else in halves. A factor that is held
//            once serves every expert.
//   padded   partitions (MXFP4): slot j of rank k is the base's unit k * I / tp + j, whatever unit
//            the LoRA there was cut from; slots beyond I / tp are no unit and left out.
//   fully    sharded: the ranks' parts of A's rows are gathered (column-parallel, w13), or the
//            sums over their columns reduced (row-parallel, w2), before this rank's rows of B: `a`
//            is then put together from all ranks.
// Convolutions have none: their layers read the base's weight and pass LoRA by. Not modelled, as
// nobody ran it: gpt-oss in the mixed format, whose MXFP4 experts may keep gate and up interleaved
// (rule gpt-oss-mixed-mode), and the router weight on the input of Llama 4.
// `ranks`: the buffers of all ranks where --fully-sharded-loras is on; else only `rank` is read.
std::vector<ServedBlock> served_blocks(const Server& server, int64_t rank,
                                       const std::vector<TensorMap>& ranks);

// Engine::blocks.
std::vector<ServedBlock> blocks(const BufferRequest& request, const RankBuffers& held);

}  // namespace moelora::vllm
