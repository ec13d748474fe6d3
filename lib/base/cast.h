#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "lib/base/source.h"
#include "lib/base/tensor.h"

namespace moelora {

// Casts between F64, F32, F16 and BF16. Narrowing rounds to nearest, ties to even; what is too
// large becomes an infinity, as torch does. A NaN keeps its sign and the top bits of its payload
// and becomes quiet: frameworks disagree about NaN bits (torch alone gives 0x7FC0 or 0xFFFF for
// BF16, by code path), so compare NaNs by class. F64 to F16 or BF16 rounds once, from F64.

// `source` seen as elements of `to`; `source` itself when it is of that type already. The result's
// change() reads "cast F32 to BF16" or, where every value is kept, "cast BF16 to F32 (exact)".
// Throws Error when either type is not a float type.
SourcePtr cast_source(SourcePtr source, DType to);

// Every tensor of a float type cast; the others as they are. Tensors that share a source share its
// cast, so that the writer still reads each source once.
TensorMap cast_tensors(const TensorMap& tensors, DType to);

// True when every value of `from` is a value of `to`.
bool cast_is_exact(DType from, DType to);

// `count` elements of type `from` at `in` as `to` at `out`. REQUIRES: float types; the ranges do
// not overlap.
void cast_elements(DType from, DType to, int64_t count, const std::byte* in, std::byte* out);

// Bits of one value in another format.
uint32_t f32_from_bf16(uint16_t bits);
uint16_t bf16_from_f64(uint64_t bits);

// All elements of a small tensor of a float type, as doubles, row-major. Throws Error otherwise.
std::vector<double> read_double(const Tensor& tensor);

}  // namespace moelora
