#pragma once

#include "lib/engine/sglang/copy/buckets.h"
#include "lib/engine/sglang/copy/slice.h"
#include "lib/engine/sglang/copy/write.h"
#include "lib/engine/sglang/model/wrapped.h"

namespace moelora::sglang {

// What does not change while an adapter is copied.
struct CopyContext {
  CpuAdapter& adapter;
  const ModelClass& model;
  const Features& features;
  const Wrapping& wrapping;
  WriteSink& sink;
};

// What copying dense modules and experts of one layer to one rank's pool has in common.
struct Copier {
  const CopyContext& c;
  const Pool& pool;
  int layer;

  // Where the rows and columns of `sliced` go: to the buffer's first row, unless the caller says
  // otherwise.
  Write at(const Buffer& buffer, bool is_a, const Sliced& sliced) const;
  const Shape& shape_of(const Buffer& buffer, bool is_a) const;

  // load_lora_weight_tensor(): exactly the buffer's shape, `view`. Both refuse what they say no to.
  bool fits(const Shape& view, const Sliced& sliced) const;
  bool refuse_slice(const Sliced& sliced) const;
};

}  // namespace moelora::sglang
