#include "lib/model/mxfp4.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

#include "lib/base/error.h"
#include "lib/io/safetensors.h"

namespace moelora {
namespace {

std::vector<std::byte> bytes_of(const std::vector<uint8_t>& values) {
  std::vector<std::byte> out(values.size());
  std::memcpy(out.data(), values.data(), values.size());
  return out;
}

Tensor u8_tensor(const std::vector<uint8_t>& values, const Shape& shape) {
  return Tensor(std::make_shared<MemorySource>(DType::U8, bytes_of(values), "blocks"), shape);
}

std::vector<uint16_t> bf16_of(const Tensor& tensor) {
  std::vector<uint16_t> out(static_cast<size_t>(tensor.elements()));
  tensor.read(reinterpret_cast<std::byte*>(out.data()));
  return out;
}

// Every code at every scale, low and high nibble: block b has scale b, byte i holds codes i and
// 15 - i.
std::vector<uint8_t> all_codes() {
  std::vector<uint8_t> out;
  for (int scale = 0; scale < 256; ++scale) {
    for (int i = 0; i < 16; ++i) out.push_back(static_cast<uint8_t>(i | (15 - i) << 4));
  }
  return out;
}

std::vector<uint8_t> all_scales() {
  std::vector<uint8_t> out;
  for (int scale = 0; scale < 256; ++scale) out.push_back(static_cast<uint8_t>(scale));
  return out;
}

}  // namespace

TEST_CASE("MXFP4 decodes to the bytes transformers decodes") {
  const TensorMap golden = open_safetensors(MOELORA_TEST_DATA "/mxfp4/gate_up.safetensors").tensors;
  const Tensor decoded =
      mxfp4_tensor(golden.at("gate_up_proj_blocks"), golden.at("gate_up_proj_scales"), "golden");
  CHECK(decoded.shape() == Shape{4, 96, 64});
  CHECK(decoded.transpose(1, 2).read() == golden.at("gate_up_proj").read());
}

TEST_CASE("Low nibble first, 2^(scale - 127), sign in the code's top bit") {
  std::vector<uint8_t> block(16, 0);
  block[0] = 0x92;  // codes 2 and 9: 1.0 and -0.5
  block[1] = 0x87;  // codes 7 and 8: 6.0 and -0.0
  const auto at_scale = [&](uint8_t scale) {
    return bf16_of(mxfp4_tensor(u8_tensor(block, {1, 16}), u8_tensor({scale}, {1}), "t"));
  };
  const auto one = at_scale(127);
  REQUIRE(one.size() == 32);
  CHECK(one[0] == 0x3F80);
  CHECK(one[1] == 0xBF00);
  CHECK(one[2] == 0x40C0);
  CHECK(one[3] == 0x8000);
  CHECK(one[4] == 0);
  CHECK(at_scale(128)[0] == 0x4000);
  CHECK(at_scale(0)[0] == 0x0040);    // 2^-127, subnormal in BF16 and exact
  CHECK(at_scale(252)[2] == 0x7F40);  // 6 * 2^125
}

TEST_CASE("The fast decoder equals the simple one for every code and scale") {
  const auto blocks = all_codes(), scales = all_scales();
  std::vector<uint16_t> fast(256 * 32), simple(256 * 32, 1);
  mxfp4_decode(blocks.data(), scales.data(), 253, fast.data());
  mxfp4_decode_simple(blocks.data(), scales.data(), 253, simple.data());
  fast.resize(253 * 32);
  simple.resize(253 * 32);
  CHECK(fast == simple);
}

TEST_CASE("Blocks are read in any aligned range") {
  std::vector<uint8_t> blocks(16 * 5000), scales(5000);
  for (size_t i = 0; i < blocks.size(); ++i) blocks[i] = static_cast<uint8_t>(i * 37 + i / 256);
  for (size_t i = 0; i < scales.size(); ++i) scales[i] = static_cast<uint8_t>(110 + i % 17);
  const Tensor tensor =
      mxfp4_tensor(u8_tensor(blocks, {50, 100, 16}), u8_tensor(scales, {50, 100}), "t");
  const auto whole = bf16_of(tensor);
  std::vector<uint16_t> expected(whole.size());
  mxfp4_decode_simple(blocks.data(), scales.data(), 5000, expected.data());
  CHECK(whole == expected);
  const auto some = bf16_of(tensor.slice(0, 17, 3).slice(1, 64, 128));
  CHECK(some[0] == whole[17 * 3200 + 64]);
  CHECK(some[128 * 2 + 5] == whole[19 * 3200 + 64 + 5]);
}

TEST_CASE("MXFP4 that cannot be decoded is refused") {
  const auto decode = [](std::vector<uint8_t> scales, const Shape& blocks, const Shape& shape) {
    const Tensor b = u8_tensor(std::vector<uint8_t>(scales.size() * 16, 0x22), blocks);
    return mxfp4_tensor(b, u8_tensor(scales, shape), "t").read();
  };
  CHECK_NOTHROW(decode({127, 252}, {2, 16}, {2}));
  SUBCASE("a scale of 255, NaN") {
    try {
      decode({127, 255}, {2, 16}, {2});
      FAIL("expected an Error");
    } catch (const Error& error) {
      CHECK(error.text() == "scale 255 at element 1 stands for NaN, expected at most 252");
    }
  }
  SUBCASE("a scale that leaves BF16") { CHECK_THROWS_AS(decode({253, 0}, {2, 16}, {2}), Error); }
  SUBCASE("shapes that do not fit") { CHECK_THROWS_AS(decode({127, 127}, {1, 32}, {2}), Error); }
  SUBCASE("a view") {
    const Tensor blocks = u8_tensor(std::vector<uint8_t>(64), {2, 2, 16}).transpose(0, 1);
    CHECK_THROWS_AS(mxfp4_tensor(blocks, u8_tensor(std::vector<uint8_t>(4), {2, 2}), "t"), Error);
  }
}

}  // namespace moelora
