#pragma once

#include <vector>

#include "lib/engine/buffers.h"
#include "lib/engine/engine.h"

namespace moelora::peft {

// The tensors of the file that PEFT has put somewhere, by their own names and with their own
// values: it computes with those (F16 and BF16 as F32).
RankBuffers fill(const BufferRequest& request);

// What its layers add. Numbered experts that PEFT joins are given one by one: [gate; up] on A and
// block-diagonal B are the same products.
std::vector<ServedBlock> blocks(const BufferRequest& request, const RankBuffers& held);

}  // namespace moelora::peft
