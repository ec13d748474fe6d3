#pragma once

#include <vector>

#include "lib/engine/buffers.h"
#include "lib/engine/sglang/kernels/expert_kernel.h"
#include "lib/engine/sglang/pool/pool.h"

namespace moelora::sglang {

// The routed experts of a layer on one rank.
struct ExpertBuffers {
  Tensor gate_up_a, gate_up_b;  // [E or 1, c*R, H], [E, c*J, R]
  Tensor down_a, down_b;        // [E, R, J], [E or 1, H, R]
};

// Adds what the kernel makes of them: gate and up in one block each, gpt-oss's halves in two.
void add_expert_blocks(const ExpertBuffers& held, int layer, const ModelClass& model,
                       const Pool& pool, int64_t r, const ExpertKernel& kernel,
                       std::vector<ServedBlock>& out);

}  // namespace moelora::sglang
