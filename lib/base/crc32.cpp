#include "lib/base/crc32.h"

#include <array>
#include <bit>
#include <cstring>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace moelora {
namespace {

// Polynomials over GF(2) modulo P, reflected: bit 31 is the coefficient of x^0.
constexpr uint32_t kP = 0xEDB88320, kOne = 0x80000000;

constexpr uint32_t times_x(uint32_t a) { return a >> 1 ^ ((a & 1) != 0 ? kP : 0); }

constexpr uint32_t times(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = kOne; bit != 0; bit >>= 1, b = times_x(b))
    if ((a & bit) != 0) product ^= b;
  return product;
}

constexpr uint32_t x_to_the(uint64_t n) {
  uint32_t power = kOne, square = times_x(kOne);
  for (; n != 0; n >>= 1, square = times(square, square))
    if ((n & 1) != 0) power = times(power, square);
  return power;
}

using Tables = std::array<std::array<uint32_t, 256>, 8>;

// tables[i][b]: what byte b does to the register when i zero bytes follow it.
constexpr Tables make_tables() {
  Tables t{};
  for (uint32_t b = 0; b < 256; ++b) {
    t[0][b] = b;
    for (int i = 0; i < 8; ++i) t[0][b] = times_x(t[0][b]);
  }
  for (size_t i = 1; i < 8; ++i)
    for (size_t b = 0; b < 256; ++b) t[i][b] = t[i - 1][b] >> 8 ^ t[0][t[i - 1][b] & 0xFF];
  return t;
}

constexpr Tables kTables = make_tables();

uint32_t by_tables(uint32_t state, const std::byte* p, size_t count) {
  const auto table = [](size_t i, uint64_t word) { return kTables[i][word & 0xFF]; };
  for (; std::endian::native == std::endian::little && count >= 8; count -= 8, p += 8) {
    uint64_t word = 0;
    std::memcpy(&word, p, 8);
    word ^= state;
    state = table(7, word) ^ table(6, word >> 8) ^ table(5, word >> 16) ^ table(4, word >> 24) ^
            table(3, word >> 32) ^ table(2, word >> 40) ^ table(1, word >> 48) ^
            table(0, word >> 56);
  }
  for (; count > 0; --count, ++p) state = state >> 8 ^ table(0, state ^ static_cast<uint32_t>(*p));
  return state;
}

#if defined(__x86_64__)
// Half a register moves `bits` further from the end; a reflected product lies one bit too low.
constexpr long long fold_factor(uint64_t bits) {
  return static_cast<long long>(uint64_t{x_to_the(bits)} << 1);
}

__attribute__((target("pclmul"))) inline __m128i fold(__m128i x, __m128i factors, __m128i next) {
  return _mm_xor_si128(next, _mm_xor_si128(_mm_clmulepi64_si128(x, factors, 0x00),
                                           _mm_clmulepi64_si128(x, factors, 0x11)));
}

// Four registers run over the bytes, fold into one, and the tables take what it holds.
// REQUIRES: count >= 64 and a multiple of 16.
__attribute__((target("pclmul"))) uint32_t by_folding(uint32_t state, const std::byte* p,
                                                      size_t count) {
  const auto* in = reinterpret_cast<const __m128i*>(p);
  const auto* const end = in + count / 16;
  const __m128i by_64 = _mm_set_epi64x(fold_factor(512 - 32), fold_factor(512 + 32));
  const __m128i by_16 = _mm_set_epi64x(fold_factor(128 - 32), fold_factor(128 + 32));
  __m128i a = _mm_xor_si128(_mm_loadu_si128(in), _mm_cvtsi32_si128(static_cast<int>(state)));
  __m128i b = _mm_loadu_si128(in + 1), c = _mm_loadu_si128(in + 2), d = _mm_loadu_si128(in + 3);
  for (in += 4; end - in >= 4; in += 4) {
    a = fold(a, by_64, _mm_loadu_si128(in));
    b = fold(b, by_64, _mm_loadu_si128(in + 1));
    c = fold(c, by_64, _mm_loadu_si128(in + 2));
    d = fold(d, by_64, _mm_loadu_si128(in + 3));
  }
  __m128i x = fold(fold(fold(a, by_16, b), by_16, c), by_16, d);
  for (; in != end; ++in) x = fold(x, by_16, _mm_loadu_si128(in));
  std::array<std::byte, 16> rest;
  _mm_storeu_si128(reinterpret_cast<__m128i*>(rest.data()), x);
  return by_tables(0, rest.data(), rest.size());
}
#endif

}  // namespace

uint32_t crc32(uint32_t crc, std::span<const std::byte> bytes) {
  uint32_t state = ~crc;
#if defined(__x86_64__)
  if (bytes.size() >= 64 && __builtin_cpu_supports("pclmul") != 0) {
    const size_t whole = bytes.size() / 16 * 16;
    state = by_folding(state, bytes.data(), whole);
    bytes = bytes.subspan(whole);
  }
#endif
  return ~by_tables(state, bytes.data(), bytes.size());
}

uint32_t crc32_join(uint32_t a, uint32_t b, uint64_t bytes_of_b) {
  return times(a, x_to_the(bytes_of_b * 8)) ^ b;
}

}  // namespace moelora
