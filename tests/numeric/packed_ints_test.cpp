#include <doctest/doctest.h>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/numeric/base_weights.h"
#include "tests/numeric/made_tensor.h"

namespace moelora::test {
namespace {

Tensor words(const Shape& shape, const std::vector<int32_t>& values) {
  return made_tensor(DType::I32, shape, values);
}

// Scale 1 for every row.
Tensor ones(int64_t rows) {
  return Tensor::of_f32({rows, 1}, std::vector<float>(static_cast<size_t>(rows), 1.0F));
}

std::vector<double> unpacked(const Tensor& packed, int64_t out, int64_t in) {
  return read_double(packed_ints_tensor({packed, ones(out), out, in}, "t"));
}

std::string text_of(const PackedInts& parts) {
  try {
    read_double(packed_ints_tensor(parts, "t"));
  } catch (const Error& error) {
    return error.text();
  }
  return "";
}

}  // namespace

TEST_CASE("Integers unpack to compressed-tensors' own known answers") {
  // test_pack_quant.py, test_pack_to_int32.
  using V = std::vector<double>;
  CHECK(unpacked(words({1, 1}, {52137}), 1, 5) == V{1, 2, 3, 4, -8});
  CHECK(unpacked(words({1, 1}, {1985229328}), 1, 8) == V{-8, -7, -6, -5, -4, -3, -2, -1});
  CHECK(unpacked(words({1, 2}, {1985229328, 52137}), 1, 12) ==
        V{-8, -7, -6, -5, -4, -3, -2, -1, 1, 2, 3, 4});
  CHECK(unpacked(words({2, 2}, {-2071756159, 50462976, 50462976, -2071756159}), 2, 8) ==
        V{1, 2, 3, 4, -128, -127, -126, -125, -128, -127, -126, -125, 1, 2, 3, 4});
}

TEST_CASE("A group's scale and zero point apply to its columns") {
  const Tensor packed = words({2, 2}, {1985229328, 52137, 52137, 1985229328});
  const Tensor scale = Tensor::of_f32({2, 4}, std::vector<float>{1, 2, 4, 0.5F, -1, 3, 10, 0.25F});
  PackedInts parts{packed, scale, 2, 16};
  using V = std::vector<double>;
  const V symmetric = {-8,  -7,  -6,  -5,  -8,  -6,  -4, -2,    4,    8,    12,
                       16,  -4,  -4,  -4,  -4,  -1,  -2, -3,    -4,   -24,  -24,
                       -24, -24, -80, -70, -60, -50, -1, -0.75, -0.5, -0.25};
  CHECK(read_double(packed_ints_tensor(parts, "t")) == symmetric);

  SUBCASE("bytes, one per row and group") {
    parts.zero_point = made_tensor<int8_t>(DType::I8, {2, 4}, {1, 0, 0, -8, 0, 2, 0, 0});
    const V found = read_double(packed_ints_tensor(parts, "t"));
    CHECK(found[0] == -9);
    CHECK(found[4] == -8);
    CHECK(found[12] == 0);
    CHECK(found[16 + 4] == -30);
  }
  SUBCASE("packed down the rows") {
    // Row 0's zero points are 1, 0, 0, -8, row 1's are 0, 2, 0, 0: nibbles 0 and 1 of each word.
    parts.zero_point = words({1, 4}, {0x89, 0xA8, 0x88, 0x80});
    const V found = read_double(packed_ints_tensor(parts, "t"));
    CHECK(found[0] == -9);
    CHECK(found[4] == -8);
    CHECK(found[12] == 0);
    CHECK(found[16 + 4] == -30);
    CHECK(found[16] == -1);
  }
  SUBCASE("columns in an order of their own") {
    std::vector<int32_t> group(16, 0);
    group[1] = 3;
    parts.group_of = words({16}, group);
    const V found = read_double(packed_ints_tensor(parts, "t"));
    CHECK(found[0] == -8);
    CHECK(found[1] == -3.5);
    CHECK(found[8] == 1);
    parts.group_of = words({16}, std::vector<int32_t>(16, -1));  // not in use
    CHECK(read_double(packed_ints_tensor(parts, "t")) == symmetric);
  }
  SUBCASE("any range of rows and columns") {
    const Tensor part = packed_ints_tensor(parts, "t").slice(0, 1, 1).slice(1, 3, 2);
    CHECK(read_double(part) == V{-4, -24});
  }
}

TEST_CASE("A product with a scale of many bits is exact") {
  const Tensor scale = Tensor::of_f32({1, 1}, std::vector<float>{0x1.fffffep-3F});
  const auto found = read_double(packed_ints_tensor({words({1, 1}, {0}), scale, 1, 4}, "t"));
  CHECK(found[0] == -8 * 0x1.fffffep-3);
  const PackedInts wide{words({1, 2}, {0x00FF, 0}), scale, 1, 5};  // 8-bit: 127 and -128
  CHECK(read_double(packed_ints_tensor(wide, "t"))[0] == 127 * 0x1.fffffep-3);
}

TEST_CASE("Packed integers that do not fit are refused") {
  const Tensor packed = words({2, 2}, {0, 0, 0, 0});
  const PackedInts sound{packed, ones(2), 2, 16};
  CHECK(text_of(sound).empty());
  PackedInts parts = sound;
  SUBCASE("another width") {
    parts.in = 17;
    CHECK(text_of(parts) ==
          "weight_packed has shape [2, 2], which holds neither 4-bit nor 8-bit values of a [2, 17] "
          "matrix");
  }
  SUBCASE("sizes that a file may claim") {
    for (const int64_t in : {int64_t{0}, int64_t{-16}, INT64_MAX, INT64_MIN}) {
      parts.in = in;
      CHECK(text_of(parts).starts_with("weight_packed has shape"));
    }
    parts.in = 16;
    parts.out = -2;
    CHECK(text_of(parts).starts_with("weight_packed has shape"));
  }
  SUBCASE("groups that do not divide the columns") {
    parts.scale = Tensor::of_f32({2, 3}, std::vector<float>(6, 1.0F));
    CHECK(text_of(parts) ==
          "weight_scale is F32 [2, 3], expected a float type and [2, a divisor of 16]");
  }
  SUBCASE("zero points of another shape") {
    parts.zero_point = words({2, 1}, {0, 0});
    CHECK(text_of(parts) == "weight_zero_point has shape [2, 1], expected [1, 1]");
  }
  SUBCASE("a group that is not there") {
    parts.group_of = words({16}, {1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0});
    CHECK(text_of(parts) == "weight_g_idx of column 0 is 1, expected 0 to 0");
  }
  SUBCASE("other dtypes") {
    parts.packed = made_tensor<uint32_t>(DType::U32, {2, 2}, {0, 0, 0, 0});
    CHECK(text_of(parts) == "weight_packed is U32, expected I32");
  }
}

}  // namespace moelora::test
