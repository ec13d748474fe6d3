#include "lib/base/cast.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "lib/base/error.h"

using namespace moelora;

namespace {

struct Format {
  int exponent_bits, mantissa_bits;
};
constexpr Format kF16{5, 10}, kBF16{8, 7};

// The value of 16 bits, by the definition of the format. NaN and infinity included.
double value_of(uint32_t bits, Format f) {
  const int bias = (1 << (f.exponent_bits - 1)) - 1;
  const int exponent = static_cast<int>(bits >> f.mantissa_bits & ((1U << f.exponent_bits) - 1));
  const double mantissa = static_cast<double>(bits & ((1U << f.mantissa_bits) - 1));
  const double sign = (bits >> 15 & 1U) != 0 ? -1 : 1;
  if (exponent == (1 << f.exponent_bits) - 1)
    return mantissa != 0 ? std::numeric_limits<double>::quiet_NaN()
                         : sign * std::numeric_limits<double>::infinity();
  const double fraction = std::ldexp(mantissa, -f.mantissa_bits);
  return exponent == 0 ? sign * std::ldexp(fraction, 1 - bias)
                       : sign * std::ldexp(1 + fraction, exponent - bias);
}

// The values of 0 and above by their bits, up to where infinity is: what would be the next value
// after the largest finite one stands for it.
std::vector<double> magnitudes(Format f) {
  const uint32_t infinity = ((1U << f.exponent_bits) - 1) << f.mantissa_bits;
  std::vector<double> out;
  for (uint32_t bits = 0; bits < infinity; ++bits) out.push_back(value_of(bits, f));
  out.push_back(std::ldexp(1.0, 1 << (f.exponent_bits - 1)));
  return out;
}

// The nearest 16 bits to a finite or infinite value, found by search; of two the even one.
uint16_t nearest(double x, Format f) {
  static const std::vector<double> f16 = magnitudes(kF16), bf16 = magnitudes(kBF16);
  const std::vector<double>& values = f.mantissa_bits == kF16.mantissa_bits ? f16 : bf16;
  const auto sign = std::signbit(x) ? 0x8000U : 0U;
  x = std::fabs(x);
  const auto above = std::upper_bound(values.begin(), values.end(), x);
  const auto hi = static_cast<uint32_t>(above - values.begin());  // 1 or more: 0 is not above x
  if (above == values.end()) return static_cast<uint16_t>(sign | (hi - 1));
  const double down = x - values[hi - 1], up = values[hi] - x;
  return static_cast<uint16_t>(sign | (up < down || (up == down && hi % 2 == 0) ? hi : hi - 1));
}

float as_f32(uint32_t bits) { return std::bit_cast<float>(bits); }

// One value, from bits to bits.
template <class To, class From>
To cast_one(DType from, DType to, From bits) {
  To out{};
  cast_elements(from, to, 1, reinterpret_cast<const std::byte*>(&bits),
                reinterpret_cast<std::byte*>(&out));
  return out;
}
uint32_t f32_from_f16(uint16_t bits) { return cast_one<uint32_t>(DType::F16, DType::F32, bits); }
uint16_t bf16_from_f32(uint32_t bits) { return cast_one<uint16_t>(DType::F32, DType::BF16, bits); }
uint16_t f16_from_f32(uint32_t bits) { return cast_one<uint16_t>(DType::F32, DType::F16, bits); }
uint16_t f16_from_f64(uint64_t bits) { return cast_one<uint16_t>(DType::F64, DType::F16, bits); }

bool is_nan16(uint16_t bits, Format f) { return std::isnan(value_of(bits, f)); }

std::vector<std::byte> bytes_of(const void* data, size_t n) {
  std::vector<std::byte> out(n);
  std::memcpy(out.data(), data, n);
  return out;
}

}  // namespace

TEST_CASE("all 65,536 values of the 16-bit types widen to what they are") {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const auto b = static_cast<uint16_t>(bits);
    for (const bool bf16 : {false, true}) {
      const double expected = value_of(bits, bf16 ? kBF16 : kF16);
      const uint32_t got = bf16 ? f32_from_bf16(b) : f32_from_f16(b);
      const bool same = std::isnan(expected)
                            ? std::isnan(as_f32(got)) && (got >> 22 & 1U) == 1
                            : got == std::bit_cast<uint32_t>(static_cast<float>(expected));
      if (!same || (got >> 31) != (bits >> 15)) FAIL("bits " << bits << " bf16 " << bf16);
    }
  }
}

TEST_CASE("narrowing from F32 and F64 finds the nearest value, ties to even") {
  std::mt19937 rng(17);
  const auto check = [](uint32_t bits) {
    const float x = as_f32(bits);
    if (std::isnan(x)) return;
    const double wide = static_cast<double>(x);
    const auto bits64 = std::bit_cast<uint64_t>(wide);
    const uint16_t f16 = nearest(wide, kF16), bf16 = nearest(wide, kBF16);
    if (f16_from_f32(bits) != f16 || bf16_from_f32(bits) != bf16 || f16_from_f64(bits64) != f16 ||
        bf16_from_f64(bits64) != bf16)
      FAIL("bits " << bits << ": " << f16_from_f32(bits) << " " << f16);
  };
  SUBCASE("around every 16-bit value and every tie") {
    for (uint32_t high = 0; high < 65536; ++high)
      for (const uint32_t low : {0x0000U, 0x0001U, 0x7FFFU, 0x8000U, 0x8001U, 0xFFFFU})
        check(high << 16 | low);
  }
  SUBCASE("around every tie of F16") {
    for (uint32_t half = 0; half < 0x7C00; ++half) {
      const double tie =
          (value_of(half, kF16) + value_of(half == 0x7BFF ? half : half + 1, kF16)) / 2;
      const auto bits = std::bit_cast<uint32_t>(static_cast<float>(tie));
      for (const uint32_t near : {bits - 1, bits, bits + 1}) check(near & 0x7FFFFFFFU);
    }
  }
  SUBCASE("random") {
    for (int i = 0; i < 300'000; ++i) check(static_cast<uint32_t>(rng()));
  }
}

TEST_CASE("F64 is rounded once") {
  // Just above a tie of BF16, by less than an F32 can say: through F32 it would be rounded down.
  const double x = 1.0 + 0x1p-8 + 0x1p-40;
  CHECK(bf16_from_f64(std::bit_cast<uint64_t>(x)) == 0x3F81);
  CHECK(bf16_from_f32(std::bit_cast<uint32_t>(static_cast<float>(x))) == 0x3F80);
  const double y = 1.0 + 0x1p-11 + 0x1p-45;
  CHECK(f16_from_f64(std::bit_cast<uint64_t>(y)) == 0x3C01);
  std::mt19937_64 rng(3);
  for (int i = 0; i < 200'000; ++i) {
    const uint64_t bits = (rng() & ~(uint64_t{0x7FF} << 52)) |
                          (1023 - 160 + rng() % 320) << 52;  // around both formats' ranges
    const auto value = std::bit_cast<double>(bits);
    if (f16_from_f64(bits) != nearest(value, kF16) || bf16_from_f64(bits) != nearest(value, kBF16))
      FAIL("bits " << bits);
  }
}

TEST_CASE("a NaN stays one: its sign and the top of its payload are kept, and it is quiet") {
  for (const uint32_t bits : {0x7F800001U, 0xFF800001U, 0x7FBFFFFFU, 0xFFFFFFFFU, 0x7FC00000U}) {
    CAPTURE(bits);
    const uint16_t b = bf16_from_f32(bits), h = f16_from_f32(bits);
    CHECK(b == (bits >> 16 | 0x40U));
    CHECK(is_nan16(h, kF16));
    CHECK((h >> 15) == (bits >> 31));
    CHECK((h & 0x200) != 0);
    const uint64_t wide = uint64_t{bits >> 31} << 63 | uint64_t{0x7FF} << 52 | 1;
    CHECK(is_nan16(bf16_from_f64(wide), kBF16));
    CHECK(is_nan16(f16_from_f64(wide), kF16));
    CHECK((f16_from_f64(wide) >> 15) == (bits >> 31));
  }
}

TEST_CASE("a cast source reads as its elements one by one, whatever the range") {
  constexpr std::array kTypes = {DType::F64, DType::F32, DType::F16, DType::BF16};
  std::mt19937 rng(9);
  std::vector<float> values(300'000);
  for (float& v : values)
    v = std::ldexp(static_cast<float>(rng()), static_cast<int>(rng() % 60) - 60);
  const Tensor f32 = Tensor::of_f32({300'000}, values);
  for (const DType from : kTypes)
    for (const DType to : kTypes) {
      CAPTURE(dtype_name(from));
      CAPTURE(dtype_name(to));
      const TensorMap in = cast_tensors({{"t", f32}}, from);
      const Tensor out = cast_tensors(in, to).at("t");
      CHECK(out.dtype() == to);
      const auto whole = in.at("t").read();
      std::vector<std::byte> expected(out.bytes());
      const int64_t in_width = dtype_bytes(from), out_width = dtype_bytes(to);
      for (int64_t i = 0; i < out.elements(); ++i)
        cast_elements(from, to, 1, whole.data() + i * in_width, expected.data() + i * out_width);
      CHECK(out.read() == expected);
      CHECK(out.slice(0, 131'071, 3).read() ==
            bytes_of(expected.data() + 131'071 * out_width, static_cast<size_t>(3 * out_width)));
    }
}

TEST_CASE("a cast says what it changes") {
  const SourcePtr f32 =
      std::make_shared<MemorySource>(DType::F32, std::vector<std::byte>(8), "here");
  CHECK(f32->change() == "");
  CHECK(cast_source(f32, DType::F32) == f32);
  const SourcePtr bf16 = cast_source(f32, DType::BF16);
  CHECK(bf16->change() == "cast F32 to BF16");
  CHECK(bf16->where() == "here");
  CHECK(bf16->elements() == 2);
  CHECK(cast_source(bf16, DType::F64)->change() == "cast F32 to BF16, cast BF16 to F64 (exact)");
  CHECK(cast_is_exact(DType::F16, DType::F32));
  CHECK_FALSE(cast_is_exact(DType::F16, DType::BF16));
  CHECK_FALSE(cast_is_exact(DType::F64, DType::F32));
}

TEST_CASE("tensors that share a source share its cast, and others stay as they are") {
  const Tensor t = Tensor::of_f32({2, 2}, std::array{1.0F, 2.0F, 3.0F, 4.0F});
  const Tensor ints(std::make_shared<MemorySource>(DType::I32, std::vector<std::byte>(8)), {2});
  const TensorMap out = cast_tensors({{"a", t}, {"b", t.transpose(0, 1)}, {"i", ints}}, DType::F16);
  CHECK(out.at("a").pieces()[0].source == out.at("b").pieces()[0].source);
  CHECK(out.at("i").same_recipe(ints));
  CHECK(read_double(out.at("b")) == std::vector<double>{1, 3, 2, 4});
}

TEST_CASE("only float types are cast") {
  const SourcePtr ints = std::make_shared<MemorySource>(DType::I32, std::vector<std::byte>(8));
  CHECK_THROWS_AS(cast_source(ints, DType::F32), Error);
  CHECK_THROWS_AS(
      cast_source(std::make_shared<MemorySource>(DType::F32, std::vector<std::byte>(8)), DType::U8),
      Error);
  CHECK_THROWS_AS(cast_tensors({}, DType::I8), Error);
  CHECK_THROWS_AS(read_double(Tensor(ints, {2})), Error);
}
