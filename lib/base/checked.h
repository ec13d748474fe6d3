#pragma once

#include <cstdint>
#include <optional>

namespace moelora {

// Size arithmetic that cannot wrap. Every size that comes from a file goes through these;
// nullopt means the true result does not fit, which the caller turns into its own Error.
constexpr std::optional<uint64_t> checked_mul(uint64_t a, uint64_t b) {
  uint64_t r = 0;
  if (__builtin_mul_overflow(a, b, &r)) return std::nullopt;
  return r;
}

constexpr std::optional<uint64_t> checked_add(uint64_t a, uint64_t b) {
  uint64_t r = 0;
  if (__builtin_add_overflow(a, b, &r)) return std::nullopt;
  return r;
}

}  // namespace moelora
