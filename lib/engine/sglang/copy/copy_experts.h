#pragma once

#include "lib/engine/sglang/copy/copier.h"

namespace moelora::sglang {

// Copies one side of what a bucket of routed experts holds: every expert of this rank, or the one
// factor that all of them share.
void copy_experts(const Copier& copier, const LayerBuckets& buckets, const Buffer& buffer,
                  bool is_a);

}  // namespace moelora::sglang
