#pragma once

#include "lib/engine/buffers.h"
#include "tests/engine/vllm_oracle.h"

namespace moelora::test {

// The weights of an adapter's folder; nothing where it has none.
const TensorMap& vllm_values(const std::string& folder);

// Engine::fill and Engine::blocks of vLLM for one rank of a run.
RankBuffers vllm_filled(const VllmRun& run);
std::vector<ServedBlock> vllm_blocks(const VllmRun& run);

}  // namespace moelora::test
