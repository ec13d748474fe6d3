#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>

#include "lib/base/dtype.h"

namespace moelora::packed {

// The arithmetic that a packer may do to an element, done here a second time: casts between
// F64, F32, F16 and BF16, to nearest with ties to even, once; and s*B folded into B. Bits are those
// of an element, in the low bytes of a word.

// The value of an element; exact.
double value_of(DType dtype, uint64_t bits);

// The element nearest to `value`; too large becomes infinity, too small a zero of its sign.
uint64_t bits_of(DType dtype, double value);

bool is_nan(DType dtype, uint64_t bits);
bool is_infinite(DType dtype, uint64_t bits);

// `count` elements cast. NaNs stay NaNs; their payload is not promised.
void cast(DType from, DType to, int64_t count, const std::byte* in, std::byte* out);

// s*b as `dtype`: as torch multiplies a tensor with a number (in F32 for the 16-bit types, s
// rounded to F32 first, then to the type), or rounded once from the product in double.
enum class FoldRounding : uint8_t { torch, once };
uint64_t folded(DType dtype, uint64_t bits, double scale, FoldRounding rounding);

// Element `index` of a run of elements of 1, 2, 4 or 8 bytes.
template <class Bits>
uint64_t element_as(const std::byte* run, int64_t index) {
  Bits out;
  std::memcpy(&out, run + index * static_cast<int64_t>(sizeof out), sizeof out);
  return out;
}

inline uint64_t element(const std::byte* run, int bytes, int64_t index) {
  switch (bytes) {
    case 1:
      return element_as<uint8_t>(run, index);
    case 2:
      return element_as<uint16_t>(run, index);
    case 4:
      return element_as<uint32_t>(run, index);
    default:
      return element_as<uint64_t>(run, index);
  }
}

}  // namespace moelora::packed
