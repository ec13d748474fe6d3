// One pass over values: what it counts, that its vector kernels agree with the plain ones, and that
// the pieces it works in cannot be seen.

#include "lib/numeric/stats/value_stats.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "lib/base/cast.h"
#include "lib/io/tensor_writer.h"
#include "lib/io/weights.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

namespace {

constexpr float kNan = std::numeric_limits<float>::quiet_NaN();
constexpr float kInf = std::numeric_limits<float>::infinity();

std::vector<std::byte> bytes_of(const std::vector<float>& values, DType dtype) {
  std::vector<std::byte> out(values.size() * static_cast<size_t>(dtype_bytes(dtype)));
  cast_elements(DType::F32, dtype, static_cast<int64_t>(values.size()),
                reinterpret_cast<const std::byte*>(values.data()), out.data());
  return out;
}

Tensor tensor_of(const std::vector<float>& values, DType dtype, const Shape& shape) {
  return Tensor(std::make_shared<MemorySource>(dtype, bytes_of(values, dtype)), shape);
}

ValueStats stats_of(const Tensor& tensor, int threads = 1) {
  return scan_values({{"t", tensor}}, threads).at("t");
}

std::vector<float> normal(size_t count, float scale, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> value(0, scale);
  std::vector<float> out(count);
  for (float& x : out) x = value(rng);
  return out;
}

void check_close(const ValueStats& a, const ValueStats& b) {
  CHECK(a.elements == b.elements);
  CHECK(a.nan == b.nan);
  CHECK(a.inf == b.inf);
  CHECK(a.zeros == b.zeros);
  CHECK(a.first_bad == b.first_bad);
  CHECK(a.max_abs == b.max_abs);
  CHECK(a.sum_squares == doctest::Approx(b.sum_squares).epsilon(1e-5));
  CHECK(a.max_bf16_error == doctest::Approx(b.max_bf16_error).epsilon(1e-6));
}

}  // namespace

TEST_CASE("one pass counts NaN, infinities and zeros and knows where the first bad value is") {
  for (DType dtype : {DType::F32, DType::BF16, DType::F16, DType::F64}) {
    CAPTURE(dtype_name(dtype));
    std::vector<float> values(3 * 1000, 0.5F);
    values[1234] = kInf;
    values[2048] = kNan;
    values[2049] = -kInf;
    values[7] = 0.0F;
    values[8] = -0.0F;
    values[9] = -2.0F;
    const ValueStats s = stats_of(tensor_of(values, dtype, {3, 1000}));
    CHECK(s.known);
    CHECK(s.elements == 3000);
    CHECK(s.nan == 1);
    CHECK(s.inf == 2);
    CHECK(s.first_bad == 1234);
    CHECK(coordinates({3, 1000}, s.first_bad) == Shape{1, 234});
    CHECK(s.zeros == 2);
    CHECK(s.max_abs == 2.0);
    CHECK(s.sum_squares == doctest::Approx(0.25 * (3000 - 6) + 4.0));
    CHECK(!s.all_zero());
  }
}

TEST_CASE("the vector kernels and the plain ones say the same at every length and alignment") {
  const std::vector<float> values = normal(9000, 0.01F, 3);
  for (DType dtype : {DType::F32, DType::BF16, DType::F16, DType::F64}) {
    const std::vector<std::byte> bytes = bytes_of(values, dtype);
    for (const int64_t first : {0, 1, 5})
      for (const int64_t count : {0, 1, 15, 16, 31, 32, 33, 64, 2047, 2048, 4097, 8990}) {
        CAPTURE(dtype_name(dtype));
        CAPTURE(first);
        CAPTURE(count);
        ValueStats fast, plain;
        const std::byte* at = bytes.data() + first * dtype_bytes(dtype);
        add_values(dtype, at, count, first, fast);
        add_values_simple(dtype, at, count, first, plain);
        check_close(fast, plain);
      }
  }
}

TEST_CASE("bad values anywhere in a block are found, and do not poison its sums") {
  for (DType dtype : {DType::F32, DType::BF16, DType::F16})
    for (const size_t at : {0U, 3U, 17U, 63U, 2047U, 2048U, 4095U, 4999U})
      for (const float bad : {kNan, kInf, -kInf}) {
        CAPTURE(dtype_name(dtype));
        CAPTURE(at);
        std::vector<float> values(5000, 1.0F);
        values[at] = bad;
        const ValueStats s = stats_of(tensor_of(values, dtype, {5000}));
        CHECK(s.nan + s.inf == 1);
        CHECK(s.first_bad == static_cast<int64_t>(at));
        CHECK(s.sum_squares == 4999.0);
      }
}

TEST_CASE("values whose squares overflow a float, or are as small as floats get, are measured") {
  const ValueStats large = stats_of(tensor_of(std::vector<float>(4096, 3e38F), DType::F32, {4096}));
  CHECK(large.max_abs == doctest::Approx(3e38));
  CHECK(large.sum_squares == doctest::Approx(4096 * 9e76));
  CHECK(large.root_mean_square() == doctest::Approx(3e38));
  CHECK(large.inf == 0);
  const ValueStats small =
      stats_of(tensor_of(std::vector<float>(4096, 1e-45F), DType::F32, {4096}));
  CHECK(small.zeros == 0);
  CHECK(small.max_abs > 0);
}

TEST_CASE("the rounding to bf16 is measured: none, at most half a step, and overflow") {
  CHECK(stats_of(tensor_of(normal(999, 1, 1), DType::BF16, {999})).max_bf16_error == 0);
  std::vector<float> values(640, 1.0F);
  CHECK(stats_of(tensor_of(values, DType::F32, {640})).max_bf16_error == 0);
  values[333] = 1.0F + 0x1p-8F;  // half way between two values of bf16
  const double half = 0x1p-8 / (1 + 0x1p-8);
  CHECK(stats_of(tensor_of(values, DType::F32, {640})).max_bf16_error == doctest::Approx(half));
  values[1] = std::numeric_limits<float>::max();
  CHECK(std::isinf(stats_of(tensor_of(values, DType::F32, {640})).max_bf16_error));
}

TEST_CASE("the root mean square is of the finite values") {
  std::vector<float> values = normal(100000, 0.02F, 9);
  const ValueStats s = stats_of(tensor_of(values, DType::F32, {100, 1000}));
  CHECK(s.root_mean_square() == doctest::Approx(0.02).epsilon(0.02));
  CHECK(ValueStats{}.root_mean_square() == 0);
}

TEST_CASE("the number of threads and the size of the pieces do not show") {
  TensorMap tensors;
  tensors["large"] = tensor_of(normal(3 << 20, 1, 5), DType::F32, {3 << 10, 1 << 10});
  for (int i = 0; i < 40; ++i)
    tensors["small" + std::to_string(i)] =
        tensor_of(normal(777, 1, static_cast<uint32_t>(i)), DType::BF16, {777});
  const auto once = scan_values(tensors, 1);
  CHECK(once.size() == tensors.size());
  for (int threads : {2, 5}) CHECK(scan_values(tensors, threads) == once);
}

TEST_CASE("views, zeros, empty tensors and other dtypes are looked at as they are") {
  const std::vector<float> values = normal(6 * 50, 1, 7);
  const Tensor whole = tensor_of(values, DType::F32, {6, 50});
  SUBCASE("a transposed view") { check_close(stats_of(whole.transpose(0, 1)), stats_of(whole)); }
  SUBCASE("rows of a larger tensor") {
    std::vector<float> two(values.begin() + 100, values.begin() + 200);
    check_close(stats_of(whole.slice(0, 2, 2)), stats_of(tensor_of(two, DType::F32, {100})));
  }
  SUBCASE("columns of a larger tensor") { CHECK(stats_of(whole.slice(1, 3, 4)).elements == 24); }
  SUBCASE("zeros that no file holds") {
    const ValueStats s = stats_of(Tensor::zeros(DType::BF16, {1 << 20, 1 << 20}));
    CHECK(s.all_zero());
    CHECK(s.elements == int64_t{1} << 40);
  }
  SUBCASE("an empty tensor") {
    const ValueStats s = stats_of(Tensor::zeros(DType::F32, {0, 4}));
    CHECK(s.known);
    CHECK(s.elements == 0);
  }
  SUBCASE("integers have no statistics") {
    CHECK(!stats_of(Tensor::zeros(DType::I32, {4})).known);
    CHECK(!stats_of(Tensor::zeros(DType::F8_E4M3, {4})).known);
  }
}

TEST_CASE("tensors that lie together in a file are read together, and each keeps its own numbers") {
  TempFolder folder;
  TensorMap tensors;
  for (int i = 0; i < 300; ++i) {
    const DType dtype = i % 3 == 0 ? DType::BF16 : i % 3 == 1 ? DType::F32 : DType::F16;
    std::vector<float> values =
        normal(static_cast<size_t>(100 + i * 7), 0.1F, static_cast<uint32_t>(i));
    if (i % 50 == 7) values[static_cast<size_t>(i)] = kNan;
    tensors["t" + std::to_string(i)] =
        tensor_of(values, dtype, {static_cast<int64_t>(values.size())});
  }
  tensors["large"] = tensor_of(normal(200'000, 1, 1), DType::F32, {200'000});
  {
    OutputFolder out(folder.path("a"), {}, {false, false});
    write_weights(out, "adapter_model", tensors, {});
    out.commit("adapter_config.json", "{}");
  }
  const Weights read = open_weights(folder.path("a"), {"adapter_model"});
  const auto in_memory = scan_values(tensors, 1), in_file = scan_values(read.tensors, 2);
  REQUIRE(in_file.size() == in_memory.size());
  for (const auto& entry : in_memory) {
    CAPTURE(entry.first);
    CHECK(in_file.at(entry.first) == entry.second);
  }
}
