#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace moelora {

// The 22 element types of a safetensors file (reference 0.8.0), in the order of the reference's
// enum: its writer sorts tensors by this order, descending, so the order is part of the format.
enum class DType : uint8_t {
  // clang-format off
  BOOL, F4, F6_E2M3, F6_E3M2, U8, I8, F8_E5M2, F8_E4M3, F8_E8M0, F8_E4M3FNUZ, F8_E5M2FNUZ,
  I16, U16, F16, BF16, I32, U32, F32, C64, F64, I64, U64,
  // clang-format on
};

inline constexpr int kDTypeCount = 22;

// Name as the file spells it ("BF16"). Names are case-sensitive.
std::string_view dtype_name(DType dtype);
std::optional<DType> dtype_from_name(std::string_view name);

// Bits of one logical element: 4 for F4, 6 for F6_*, else a multiple of 8.
int dtype_bits(DType dtype);

// Bytes of one element. REQUIRES: dtype_bits(dtype) % 8 == 0.
int dtype_bytes(DType dtype);

// F64, F32, F16 or BF16: what a LoRA factor may be and what casts work between.
bool is_float(DType dtype);

}  // namespace moelora
