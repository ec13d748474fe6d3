#include "lib/base/scale.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>

#include "lib/base/cast.h"
#include "lib/base/error.h"

using namespace moelora;

namespace {

Tensor of(DType dtype, const std::vector<double>& values) {
  std::vector<std::byte> bytes(values.size() * static_cast<size_t>(dtype_bytes(dtype)));
  cast_elements(DType::F64, dtype, static_cast<int64_t>(values.size()),
                reinterpret_cast<const std::byte*>(values.data()), bytes.data());
  return Tensor(std::make_shared<MemorySource>(dtype, std::move(bytes), "w.safetensors: lora_B"),
                {static_cast<int64_t>(values.size())});
}

std::vector<double> scaled(DType dtype, const std::vector<double>& values, double factor) {
  Scaler scaler;
  return read_double(scaler.scaled(of(dtype, values), factor));
}

std::string change(const Tensor& tensor) { return tensor.pieces().front().source->change(); }

}  // namespace

TEST_CASE("a power of two changes exponents only, and says so") {
  const std::vector<double> values{1.5, -0.0078125, 0, 240};
  for (DType dtype : {DType::F64, DType::F32, DType::F16, DType::BF16}) {
    CAPTURE(dtype_name(dtype));
    Scaler scaler;
    const Tensor out = scaler.scaled(of(dtype, values), 0.25);
    CHECK(read_double(out) == std::vector<double>{0.375, -0.001953125, 0, 60});
    CHECK(out.dtype() == dtype);
    CHECK(change(out) == "scaled by 0.25 (exact)");
  }
  CHECK(is_power_of_two(2));
  CHECK(is_power_of_two(-0.125));
  CHECK_FALSE(is_power_of_two(3));
  CHECK_FALSE(is_power_of_two(0));
}

TEST_CASE("any other factor rounds once, to the tensor's own type") {
  CHECK(scaled(DType::F32, {1, 3}, 1.0 / 3) == std::vector<double>{double(1.0f / 3), 1});
  // 1.0078125 * 1.5 = 1.51171875 lies between the BF16 values 1.5078125 and 1.515625: a tie, to
  // even.
  CHECK(scaled(DType::BF16, {1.0078125}, 1.5) == std::vector<double>{1.515625});
  Scaler scaler;
  const Tensor out = scaler.scaled(of(DType::BF16, {1}), 1.5);
  CHECK(change(out) == "scaled by 1.5");
}

TEST_CASE("a power of two that loses bits below the smallest normal number is not called exact") {
  Scaler scaler;
  const Tensor out = scaler.scaled(of(DType::F16, {1.0009765625 * std::ldexp(1, -14)}), 0.5);
  out.read();
  CHECK(change(out) == "scaled by 0.5");
}

TEST_CASE("a product that the type cannot hold is refused with its tensor's name") {
  CHECK_THROWS_WITH_AS(scaled(DType::F16, {1, 40000}, 2),
                       "w.safetensors: lora_B: 40000 scaled by 2 is more than F16 can hold", Error);
  CHECK(scaled(DType::BF16, {40000 - 64}, 2) == std::vector<double>{80000 - 128});
}

TEST_CASE("infinities and NaNs stay what they are") {
  const double inf = std::numeric_limits<double>::infinity();
  const std::vector<double> out = scaled(DType::F16, {inf, -inf, std::nan("")}, 0.5);
  CHECK(out[0] == inf);
  CHECK(out[1] == -inf);
  CHECK(std::isnan(out[2]));
}

TEST_CASE("views of one source share one product, and zeros stay zeros without a source") {
  Scaler scaler;
  const Tensor whole = of(DType::F32, {1, 2, 3, 4});
  const Tensor a = scaler.scaled(whole.slice(0, 0, 2), 2),
               b = scaler.scaled(whole.slice(0, 2, 2), 2);
  CHECK(a.pieces().front().source == b.pieces().front().source);
  CHECK(read_double(b) == std::vector<double>{6, 8});
  CHECK(scaler.scaled(whole, 4).pieces().front().source != a.pieces().front().source);
  CHECK(scaler.scaled(whole, 1).same_recipe(whole));
  CHECK(scaler.scaled(Tensor::zeros(DType::F32, {3}), 2).pieces().empty());
}

TEST_CASE("what is not a float cannot be scaled") {
  const Tensor bytes(std::make_shared<MemorySource>(DType::F8_E4M3, std::vector<std::byte>(2)),
                     {2});
  Scaler scaler;
  CHECK_THROWS_WITH_AS(scaler.scaled(bytes, 2), doctest::Contains("cannot scale F8_E4M3"), Error);
}
