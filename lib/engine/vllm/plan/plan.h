#pragma once

#include <vector>

#include "lib/base/source.h"
#include "lib/base/tensor.h"
#include "lib/engine/buffers.h"
#include "lib/engine/vllm/server/server.h"

// What becomes of an adapter, put together from the loads of the ranks: the plan, the values that
// a rank holds, and what the kernels compute with them.
namespace moelora::vllm {

// What all ranks together do with an adapter: what they raise, what becomes of every tensor, and
// what they do otherwise than the adapter means, without a word. That is
//   - tensors that no module takes, halves of pairs, shapes that are not the base's;
//   - where the config says something else of a tensor than vLLM reads: rank_pattern, alpha_pattern
//     and rsLoRA (wrong scale), the number of experts and the order of a stacked lora_B (wrong
//     values). Quiet on a config that this tool cannot read: the server's own complaint says it.
AdapterPlan plan_adapter(const Server& server, const ServedAdapter& served);

// Engine::fill: every buffer of every module of the server on one rank after the load
// (module_buffers), by name; lazy. Refused as the server refuses: it does not start, or the load
// raises.
RankBuffers fill(const BufferRequest& request);  // fill.cpp

// Engine::blocks: what vLLM's kernels add on one rank (facts in goldens/oracles/vllm.md 3 and the
// sources of layers/fused_moe.py and fused_moe_lora): every slice's B (A x), scale 1, as lora_B is
// held scaled.
//   experts  slice 0 of w13 is added to gate's columns and slice 1 to up's; one slice of stacked
//            experts holds both, interleaved for gpt-oss, else in halves. A factor that is held
//            once serves every expert.
//   padded   partitions (MXFP4): slot j of rank k is the base's unit k * I / tp + j, whatever unit
//            the LoRA there was cut from; slots beyond I / tp are not units and are left out.
//   fully    sharded: the ranks' parts of A's rows are gathered (column-parallel, w13), or the
//            sums over their columns reduced (row-parallel, w2), before this rank's rows of B: `a`
//            is then put together from all ranks.
// Convolutions have none: their layers read the base's weight and pass LoRA by. Not modelled, as
// nobody ran it: gpt-oss in the mixed format, whose MXFP4 experts may keep gate and up interleaved
// (rule gpt-oss-mixed-mode), and the router weight on the input of Llama 4.
std::vector<ServedBlock> blocks(const BufferRequest& request,
                                const RankBuffers& held);  // blocks.cpp

// Values as torch computes them when a server loads an adapter: bit for bit, and infinities where
// torch makes some (lib/base/cast.h and scale.h round once and refuse them). In fill.cpp.

// A tensor's elements, row-major, as one source; its own source where it is the whole of one.
SourcePtr flat_source(const Tensor& tensor);

// tensor.to(BF16 or F16). Every type goes through a float, F64 too: rounded twice. Throws Error for
// types that torch does not hold one element a byte or more of (F4, F6, F8_E8M0 and complex).
SourcePtr torch_cast(SourcePtr source, DType to);

// `tensor *= factor` with a Python float, of BF16 or F16: the product of two floats, rounded to a
// float and then to the type. `source` itself where the factor is 1.
SourcePtr torch_product(SourcePtr source, double factor);

}  // namespace moelora::vllm
