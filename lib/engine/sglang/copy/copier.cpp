#include "lib/engine/sglang/copy/copier.h"

#include <fmt/format.h>

#include "lib/engine/sglang/load/diagnosis.h"

namespace moelora::sglang {

Write Copier::at(const Buffer& buffer, bool is_a, const Sliced& sliced) const {
  Write out;
  out.buffer = buffer.name;
  out.layer = layer;
  out.is_a = is_a;
  out.columns = sliced.columns.count;
  out.source_column = sliced.columns.first;
  return out;
}

const Shape& Copier::shape_of(const Buffer& buffer, bool is_a) const {
  return (is_a ? buffer.a : buffer.b)[static_cast<size_t>(layer)];
}

bool Copier::fits(const Shape& view, const Sliced& sliced) const {
  if (!sliced.error_type.empty()) return refuse_slice(sliced);
  if (view == sliced.shape) return true;
  const Diagnosis why = cause_of_shape(c.adapter, *sliced.tensor, pool.request.max_rank,
                                       fmt::format("the server makes {} of it, and expects {}",
                                                   to_string(sliced.shape), to_string(view)));
  if (c.adapter.raised_before(why.cause, sliced.tensor->sources())) return false;
  c.adapter.raise({why.cause, stage::kLoad, "AssertionError",
                   fmt::format("LoRA buffer shape {} does not match weight shape {}.",
                               py_size(view), py_size(sliced.shape)),
                   why.detail, true},
                  sliced.tensor->sources());
  return false;
}

bool Copier::refuse_slice(const Sliced& sliced) const {
  const Diagnosis why = cause_of_shape(
      c.adapter, *sliced.tensor, pool.request.max_rank,
      fmt::format("shape {}, which cannot be cut in gate and up", to_string(sliced.tensor->shape)));
  c.adapter.raise({why.cause, stage::kLoad, sliced.error_type, sliced.error_text, why.detail, true},
                  sliced.tensor->sources());
  return false;
}

}  // namespace moelora::sglang
