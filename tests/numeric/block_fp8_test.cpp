#include <doctest/doctest.h>

#include <cmath>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/numeric/base_weights.h"
#include "tests/numeric/made_tensor.h"

namespace moelora::test {
namespace {

Tensor all_codes(int64_t rows, int64_t columns) {
  std::vector<uint8_t> codes(static_cast<size_t>(rows * columns));
  for (size_t i = 0; i < codes.size(); ++i) codes[i] = static_cast<uint8_t>(i * 7 % 127);
  return made_tensor(DType::F8_E4M3, {rows, columns}, codes);
}

}  // namespace

TEST_CASE("E4M3 codes are the numbers ml_dtypes' float8_e4m3fn says") {
  // ml_dtypes 0.6.0, codes 0 to 126, in units of 2^-9; negative codes are their negatives.
  const int units[127] = {
      0,      1,      2,      3,      4,      5,      6,     7,     8,     9,      10,     11,
      12,     13,     14,     15,     16,     18,     20,    22,    24,    26,     28,     30,
      32,     36,     40,     44,     48,     52,     56,    60,    64,    72,     80,     88,
      96,     104,    112,    120,    128,    144,    160,   176,   192,   208,    224,    240,
      256,    288,    320,    352,    384,    416,    448,   480,   512,   576,    640,    704,
      768,    832,    896,    960,    1024,   1152,   1280,  1408,  1536,  1664,   1792,   1920,
      2048,   2304,   2560,   2816,   3072,   3328,   3584,  3840,  4096,  4608,   5120,   5632,
      6144,   6656,   7168,   7680,   8192,   9216,   10240, 11264, 12288, 13312,  14336,  15360,
      16384,  18432,  20480,  22528,  24576,  26624,  28672, 30720, 32768, 36864,  40960,  45056,
      49152,  53248,  57344,  61440,  65536,  73728,  81920, 90112, 98304, 106496, 114688, 122880,
      131072, 147456, 163840, 180224, 196608, 212992, 229376};
  for (size_t code = 0; code < 127; ++code) {
    CHECK(e4m3_values()[code] == units[code] / 512.0);
    CHECK(e4m3_values()[code + 128] == -units[code] / 512.0);
  }
  CHECK(std::signbit(e4m3_values()[128]));
  CHECK(std::isnan(e4m3_values()[127]));
  CHECK(std::isnan(e4m3_values()[255]));
}

TEST_CASE("Each 128x128 block has its scale, the last ones of a row and a column their own") {
  const Tensor weight = all_codes(130, 257);
  const Tensor scale = Tensor::of_f32({2, 3}, std::vector<float>{1, 2, 4, 8, 16, 0x1.000002p0F});
  const std::vector<double> found = read_double(block_fp8_tensor(weight, scale, "t"));
  const auto code = [](size_t row, size_t column) {
    return e4m3_values()[(row * 257 + column) * 7 % 127];
  };
  const auto at = [&](size_t row, size_t column) { return found[row * 257 + column]; };
  CHECK(at(0, 3) == code(0, 3));
  CHECK(at(127, 127) == code(127, 127));
  CHECK(at(127, 128) == 2 * code(127, 128));
  CHECK(at(5, 256) == 4 * code(5, 256));
  CHECK(at(128, 0) == 8 * code(128, 0));
  CHECK(at(129, 255) == 16 * code(129, 255));
  CHECK(at(129, 256) == 0x1.000002p0 * code(129, 256));
  const Tensor part = block_fp8_tensor(weight, scale, "t").slice(0, 127, 2).slice(1, 120, 10);
  CHECK(read_double(part)[9] == at(127, 129));
  CHECK(read_double(part)[10] == at(128, 120));
}

TEST_CASE("FP8 whose scales do not fit is refused") {
  const auto decode = [](const Tensor& weight, const Shape& scale) {
    int64_t elements = 1;
    for (const int64_t n : scale) elements *= n;
    block_fp8_tensor(weight,
                     Tensor::of_f32(scale, std::vector<float>(static_cast<size_t>(elements))), "t");
  };
  CHECK_NOTHROW(decode(all_codes(130, 256), {2, 2}));
  CHECK_THROWS_AS(decode(all_codes(130, 256), {1, 2}), Error);
  CHECK_THROWS_AS(decode(all_codes(130, 256), {2, 3}), Error);
  CHECK_THROWS_AS(decode(all_codes(130, 256), {4}), Error);
  CHECK_THROWS_AS(decode(Tensor::of_f32({2, 2}, std::vector<float>(4)), {1, 1}), Error);
}

}  // namespace moelora::test
