#include "lib/model/mxfp4_decode.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace moelora {
namespace {

constexpr std::array<float, 16> kValues = {0.0F,  0.5F,  1.0F,  1.5F,  2.0F,  3.0F,  4.0F,  6.0F,
                                           -0.0F, -0.5F, -1.0F, -1.5F, -2.0F, -3.0F, -4.0F, -6.0F};

// Every product that is finite has at most 2 significant bits, so its BF16 is its top half.
uint16_t bf16_of(float value) {
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(value) >> 16);
}

uint16_t product(int code, int scale) {
  if (scale == 255) return bf16_of(std::numeric_limits<float>::quiet_NaN());
  return bf16_of(std::ldexp(kValues[static_cast<size_t>(code)], scale - 127));
}

// The 16 values of one scale, low bytes and high bytes apart: what two byte shuffles look up.
struct ScaleTable {
  alignas(16) std::array<uint8_t, 16> low, high;
};

std::array<ScaleTable, 256> make_tables() {
  std::array<ScaleTable, 256> out = {};
  for (int scale = 0; scale < 256; ++scale) {
    ScaleTable& table = out[static_cast<size_t>(scale)];
    for (int code = 0; code < 16; ++code) {
      const uint16_t bits = product(code, scale);
      table.low[static_cast<size_t>(code)] = static_cast<uint8_t>(bits & 0xFF);
      table.high[static_cast<size_t>(code)] = static_cast<uint8_t>(bits >> 8);
    }
  }
  return out;
}

const std::array<ScaleTable, 256>& tables() {
  static const std::array<ScaleTable, 256> all = make_tables();
  return all;
}

void decode_portable(const uint8_t* blocks, const uint8_t* scales, int64_t count, uint16_t* out) {
  const auto value = [](const ScaleTable& t, int code) {
    const auto at = static_cast<size_t>(code);
    return static_cast<uint16_t>(t.low[at] | t.high[at] << 8);
  };
  for (int64_t b = 0; b < count; ++b) {
    const ScaleTable& table = tables()[scales[b]];
    for (int i = 0; i < kMxfp4BlockBytes; ++i) {
      *out++ = value(table, *blocks & 0xF);
      *out++ = value(table, *blocks++ >> 4);
    }
  }
}

#if defined(__x86_64__)
__attribute__((target("ssse3"))) void decode_ssse3(const uint8_t* blocks, const uint8_t* scales,
                                                   int64_t count, uint16_t* out) {
  const __m128i nibble = _mm_set1_epi8(0xF);
  const std::array<ScaleTable, 256>& all = tables();
  auto* to = reinterpret_cast<__m128i*>(out);
  for (int64_t b = 0; b < count; ++b, to += 4) {
    const ScaleTable& table = all[scales[b]];
    const __m128i low = _mm_load_si128(reinterpret_cast<const __m128i*>(table.low.data()));
    const __m128i high = _mm_load_si128(reinterpret_cast<const __m128i*>(table.high.data()));
    const __m128i bytes =
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(blocks + b * kMxfp4BlockBytes));
    const __m128i even = _mm_and_si128(bytes, nibble);
    const __m128i odd = _mm_and_si128(_mm_srli_epi16(bytes, 4), nibble);
    const __m128i codes[2] = {_mm_unpacklo_epi8(even, odd), _mm_unpackhi_epi8(even, odd)};
    for (int half = 0; half < 2; ++half) {
      const __m128i l = _mm_shuffle_epi8(low, codes[half]);
      const __m128i h = _mm_shuffle_epi8(high, codes[half]);
      _mm_storeu_si128(to + 2 * half, _mm_unpacklo_epi8(l, h));
      _mm_storeu_si128(to + 2 * half + 1, _mm_unpackhi_epi8(l, h));
    }
  }
}
#endif

}  // namespace

void mxfp4_decode(const uint8_t* blocks, const uint8_t* scales, int64_t count, uint16_t* out) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("ssse3") != 0) return decode_ssse3(blocks, scales, count, out);
#endif
  decode_portable(blocks, scales, count, out);
}

void mxfp4_decode_simple(const uint8_t* blocks, const uint8_t* scales, int64_t count,
                         uint16_t* out) {
  for (int64_t b = 0; b < count; ++b) {
    const float factor = scales[b] == 255 ? std::numeric_limits<float>::quiet_NaN()
                                          : std::ldexp(1.0F, scales[b] - 127);
    for (int i = 0; i < kMxfp4Block; ++i) {
      const int byte = blocks[b * kMxfp4BlockBytes + i / 2];
      const int code = i % 2 == 0 ? byte % 16 : byte / 16;
      out[b * kMxfp4Block + i] = bf16_of(kValues[static_cast<size_t>(code)] * factor);
    }
  }
}

int64_t mxfp4_first_bad_scale(const uint8_t* scales, int64_t count) {
  const uint8_t* bad =
      std::find_if(scales, scales + count, [](uint8_t s) { return s > kMxfp4MaxScale; });
  return bad == scales + count ? -1 : bad - scales;
}

}  // namespace moelora
