#pragma once

#include "lib/engine/sglang/copy/copy_rows.h"
#include "lib/engine/sglang/copy/slice.h"
#include "lib/engine/sglang/copy/temp_buffers.h"
#include "lib/engine/sglang/pool/pool.h"

namespace moelora::sglang {

// Refuses a tensor that SGLang cannot cut (sliced.error_type) or that, cut, does not have exactly
// the buffer's shape, `view` (load_lora_weight_tensor()). False: refused.
bool fits(const CopyContext& context, const Pool& pool, const Shape& view, const Sliced& sliced);
bool refuse_slice(const CopyContext& context, const Pool& pool, const Sliced& sliced);

// What copying dense modules and experts of one layer to one rank's pool has in common.
struct Copier {
  const CopyContext& c;
  const Pool& pool;
  int layer;

  // Where the rows and columns of `sliced` go: to the buffer's first row, unless the caller says
  // otherwise.
  Write at(const Buffer& buffer, bool is_a, const Sliced& sliced) const;
  const Shape& shape_of(const Buffer& buffer, bool is_a) const;

  bool fits(const Shape& view, const Sliced& sliced) const {
    return sglang::fits(c, pool, view, sliced);
  }
};

// Copies one side of what a buffer of routed experts receives: every expert of this rank, or the
// one factor that all of them share.
void copy_experts(const Copier& copier, const TempBuffers& buffers, int buffer, bool is_a);

}  // namespace moelora::sglang
