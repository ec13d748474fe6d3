#include "lib/base/crc32.h"

#include <zlib.h>

#include <array>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace moelora {
namespace {

uint32_t by_zlib(uint32_t crc, std::span<const std::byte> bytes) {
  return static_cast<uint32_t>(
      ::crc32_z(crc, reinterpret_cast<const Bytef*>(bytes.data()), bytes.size()));
}

#if defined(__x86_64__)
__attribute__((target("pclmul"))) inline __m128i fold(__m128i x, __m128i factors, __m128i next) {
  return _mm_xor_si128(next, _mm_xor_si128(_mm_clmulepi64_si128(x, factors, 0x00),
                                           _mm_clmulepi64_si128(x, factors, 0x11)));
}

// Four registers run over the bytes and fold into one, whose bytes zlib takes.
// REQUIRES: count >= 64 and a multiple of 16.
__attribute__((target("pclmul"))) uint32_t by_folding(uint32_t crc, const std::byte* p,
                                                      size_t count) {
  const auto* in = reinterpret_cast<const __m128i*>(p);
  const auto* const end = in + count / 16;
  // A fold moves half a register 64 or 16 bytes further from the end. The factors are x^480, x^544
  // and x^96, x^160 modulo the polynomial, reflected, and shifted by a bit as a reflected product
  // lies one too low.
  const __m128i by_64 = _mm_set_epi64x(0x1C6E41596, 0x154442BD4);
  const __m128i by_16 = _mm_set_epi64x(0x0CCAA009E, 0x1751997D0);
  __m128i a = _mm_xor_si128(_mm_loadu_si128(in), _mm_cvtsi32_si128(static_cast<int>(~crc)));
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
  return by_zlib(~uint32_t{0}, rest);  // from a register of zeros
}
#endif

}  // namespace

uint32_t crc32(uint32_t crc, std::span<const std::byte> bytes) {
#if defined(__x86_64__)
  if (bytes.size() >= 64 && __builtin_cpu_supports("pclmul") != 0) {
    const size_t whole = bytes.size() / 16 * 16;
    crc = by_folding(crc, bytes.data(), whole);
    bytes = bytes.subspan(whole);
  }
#endif
  return bytes.empty() ? crc : by_zlib(crc, bytes);  // zlib takes a null pointer for a new CRC
}

uint32_t crc32_join(uint32_t a, uint32_t b, uint64_t bytes_of_b) {
  return static_cast<uint32_t>(::crc32_combine(a, b, static_cast<z_off_t>(bytes_of_b)));
}

}  // namespace moelora
