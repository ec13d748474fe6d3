#pragma once

#include "lib/engine/sglang/buckets.h"
#include "lib/engine/sglang/slice.h"
#include "lib/engine/sglang/wrapped.h"
#include "lib/engine/sglang/write.h"

namespace moelora::sglang {

// What does not change while an adapter is copied.
struct CopyContext {
  CpuAdapter& adapter;
  const ModelClass& model;
  const Features& features;
  const Wrapping& wrapping;
  WriteSink& sink;
};

// The rest of load_lora_weight_to_buffer() for one layer and rank: cuts what the buckets hold to
// this rank's share and copies it, all A first. A buffer that no module of the layer reads is left
// alone. Refuses what does not have the buffer's shape.
void copy_layer(const CopyContext& context, const Pool& pool, int layer,
                const LayerBuckets& buckets);

// embed_tokens and lm_head.
void copy_embeddings(const CopyContext& context, const Pool& pool);

}  // namespace moelora::sglang
