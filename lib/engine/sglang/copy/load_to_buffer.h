#pragma once

#include <span>

#include "lib/engine/sglang/copy/copy_layer.h"
#include "lib/engine/sglang/copy/coverage.h"

namespace moelora::sglang {

// load_lora_weight_to_buffer() on every rank: sorts the adapter's tensors into the pool's buffers
// layer by layer and copies them. `pools` has one entry a rank. What is refused, lost, missing or
// half a pair is told to the adapter.
void load_to_buffer(const CopyContext& context, std::span<const Pool> pools, bool strict);

}  // namespace moelora::sglang
