#include "lib/model/mxfp4.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <limits>

#include "lib/base/error.h"

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

const std::array<ScaleTable, 256>& tables() {
  static const std::array<ScaleTable, 256> all = [] {
    std::array<ScaleTable, 256> out = {};
    for (int scale = 0; scale < 256; ++scale)
      for (int code = 0; code < 16; ++code) {
        const uint16_t bits = product(code, scale);
        ScaleTable& table = out[static_cast<size_t>(scale)];
        table.low[static_cast<size_t>(code)] = static_cast<uint8_t>(bits & 0xFF);
        table.high[static_cast<size_t>(code)] = static_cast<uint8_t>(bits >> 8);
      }
    return out;
  }();
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

namespace {

// Blocks decoded between two reads of the inputs: both they and the result stay in the L2 cache.
constexpr int64_t kChunk = 2048;

void read_bytes(const Source& source, int64_t first, std::vector<uint8_t>& out) {
  source.read(first, static_cast<int64_t>(out.size()), reinterpret_cast<std::byte*>(out.data()));
}

class Mxfp4Source final : public Source {
 public:
  Mxfp4Source(SourcePtr blocks, SourcePtr scales)
      : Source(DType::BF16, blocks->elements() * 2),
        blocks_(std::move(blocks)),
        scales_(std::move(scales)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    std::vector<uint8_t> blocks, scales;
    const int64_t end = (first + count) / kMxfp4Block;
    for (int64_t block = first / kMxfp4Block; block < end; block += kChunk) {
      const int64_t n = std::min(kChunk, end - block);
      blocks.resize(static_cast<size_t>(n * kMxfp4BlockBytes));
      scales.resize(static_cast<size_t>(n));
      read_bytes(*blocks_, block * kMxfp4BlockBytes, blocks);
      read_bytes(*scales_, block, scales);
      check_scales(scales, block);
      mxfp4_decode(blocks.data(), scales.data(), n, reinterpret_cast<uint16_t*>(out));
      out += n * kMxfp4Block * 2;
    }
  }

  int64_t granule() const override { return kMxfp4Block; }
  std::string where() const override { return blocks_->where(); }
  std::string change() const override { return "decode MXFP4 to BF16 (exact)"; }

  std::vector<std::string> inputs() const override {
    std::vector<std::string> out = blocks_->inputs();
    for (std::string& name : scales_->inputs()) out.push_back(std::move(name));
    return out;
  }

 private:
  void check_scales(const std::vector<uint8_t>& scales, int64_t first) const {
    const auto bad = std::find_if(scales.begin(), scales.end(),
                                  [](uint8_t scale) { return scale > kMxfp4MaxScale; });
    if (bad == scales.end()) return;
    throw Error(
        scales_->where(),
        fmt::format("scale {} at element {} {}, expected at most {}", *bad,
                    first + (bad - scales.begin()),
                    *bad == 255 ? "stands for NaN" : "gives values beyond BF16", kMxfp4MaxScale),
        "the checkpoint is damaged: fetch this file again");
  }

  SourcePtr blocks_, scales_;
};

SourcePtr whole_source(const Tensor& tensor, const std::string& where) {
  const auto& pieces = tensor.pieces();
  if (pieces.size() == 1 && pieces[0].offset == 0 &&
      pieces[0].source->elements() == tensor.elements() &&
      tensor.same_recipe(Tensor(pieces[0].source, tensor.shape()))) {
    return pieces[0].source;
  }
  throw Error(where, "MXFP4 is decoded from whole tensors only, found a view");
}

}  // namespace

Tensor mxfp4_tensor(const Tensor& blocks, const Tensor& scales, const std::string& where) {
  Shape expected = scales.shape();
  expected.push_back(kMxfp4BlockBytes);
  if (blocks.dtype() != DType::U8 || scales.dtype() != DType::U8 || scales.rank() < 1 ||
      blocks.shape() != expected) {
    throw Error(
        where,
        fmt::format(
            "MXFP4 blocks are {} {} and scales {} {}, expected U8 [..., G, 16] and U8 [..., G]",
            dtype_name(blocks.dtype()), to_string(blocks.shape()), dtype_name(scales.dtype()),
            to_string(scales.shape())));
  }
  if (blocks.elements() == 0) throw Error(where, "MXFP4 blocks are empty");
  Shape shape = scales.shape();
  shape.back() *= kMxfp4Block;
  return Tensor(
      std::make_shared<Mxfp4Source>(whole_source(blocks, where), whole_source(scales, where)),
      shape);
}

}  // namespace moelora
