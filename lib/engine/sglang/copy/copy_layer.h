#pragma once

#include "lib/engine/sglang/copy/copier.h"

namespace moelora::sglang {

// The rest of load_lora_weight_to_buffer() for one layer and rank: cuts what the buckets hold to
// this rank's share and copies it, all A first. A buffer that no module of the layer reads is left
// alone. Refuses what does not have the buffer's shape.
void copy_layer(const CopyContext& context, const Pool& pool, int layer,
                const LayerBuckets& buckets);

// embed_tokens and lm_head.
void copy_embeddings(const CopyContext& context, const Pool& pool);

}  // namespace moelora::sglang
