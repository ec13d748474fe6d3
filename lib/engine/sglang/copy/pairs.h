#pragma once

#include "lib/engine/sglang/copy/copy_layer.h"

namespace moelora::sglang {

// What is wrong with a layer although every tensor of it has the right shape: factors without a
// partner, experts without factors, one factor where every expert should have its own.
void judge_pairs(const CopyContext& context, const Pool& pool, int layer,
                 const LayerBuckets& buckets);

}  // namespace moelora::sglang
