#pragma once

#include "lib/engine/buffers.h"
#include "tests/engine/vllm_oracle.h"

namespace moelora::test {

// The weights of an adapter's folder; nothing where it has none.
const TensorMap& vllm_values(const std::string& folder);

// Engine::fill and Engine::blocks of vLLM for one rank of a run.
RankBuffers vllm_filled(const VllmRun& run);
std::vector<ServedBlock> vllm_blocks(const VllmRun& run);

// As pack_vllm.py makes it of what a server held.
uint32_t buffers_crc(const TensorMap& buffers);

// Of releases that torch 2.6 ran: F8's NaNs become other NaNs there.
bool has_nan_payloads(const VllmRun& run);

}  // namespace moelora::test
