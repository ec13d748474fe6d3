#pragma once

#include <span>

#include "lib/engine/sglang/copy/temp_buffers.h"

namespace moelora::sglang {

// load_lora_weight_to_buffer() on every rank: sorts the adapter's tensors into the pool's buffers
// layer by layer, cuts what they receive to the rank's share and copies it; then embed_tokens and
// lm_head. `pools` has one entry a rank. A buffer that no module of a layer reads is left alone.
// What is refused, lost, missing or half a pair is written to the adapter's outcome.
void load_to_buffer(const CopyContext& context, std::span<const Pool> pools, bool strict);

}  // namespace moelora::sglang
