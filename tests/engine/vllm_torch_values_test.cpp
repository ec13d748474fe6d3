#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <memory>
#include <vector>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/engine/vllm/plan/plan.h"

using namespace moelora;
using namespace moelora::vllm;

namespace {

template <class T>
SourcePtr source_of(DType dtype, const std::vector<T>& values) {
  std::vector<std::byte> bytes(values.size() * sizeof(T));
  std::memcpy(bytes.data(), values.data(), bytes.size());
  return std::make_shared<MemorySource>(dtype, std::move(bytes));
}

std::vector<uint16_t> bits(const SourcePtr& source) {
  std::vector<uint16_t> out(static_cast<size_t>(source->elements()));
  source->read(0, source->elements(), reinterpret_cast<std::byte*>(out.data()));
  return out;
}

std::vector<double> values(const SourcePtr& source) {
  return read_double(Tensor(source, {source->elements()}));
}

}  // namespace

TEST_CASE("torch rounds F64 to BF16 by way of a float, which makes new ties") {
  const double above_tie = 1 + std::ldexp(1, -8) + std::ldexp(1, -30);
  const SourcePtr source = source_of<double>(DType::F64, {above_tie, 1e300, -0.25});
  CHECK(bits(torch_cast(source, DType::BF16)) == std::vector<uint16_t>{0x3F80, 0x7F80, 0xBE80});
  CHECK(bits(cast_source(source, DType::BF16))[0] == 0x3F81);  // rounded once
}

TEST_CASE("torch multiplies BF16 by a number in float and rounds the product twice") {
  const SourcePtr source = source_of<uint16_t>(DType::BF16, {0x3F81, 0x7F7F});
  const double factor = 1.0116279125213623;  // a float; the product is a tie and 5.6e-9
  CHECK(1.0078125 * factor > 1.01953125);
  CHECK(1.0078125F * static_cast<float>(factor) == 1.01953125F);
  CHECK(bits(torch_product(source, factor))[0] == 0x3F82);  // rounded once: 0x3F83
  CHECK(bits(torch_product(source, 2))[1] == 0x7F80);       // an infinity, no error
  CHECK(torch_product(source, 1) == source);
}

TEST_CASE("torch casts integers and FP8 by their values") {
  CHECK(values(torch_cast(source_of<int8_t>(DType::I8, {-128, 0, 5}), DType::BF16)) ==
        std::vector<double>{-128, 0, 5});
  CHECK(values(torch_cast(source_of<int64_t>(DType::I64, {257, -3}), DType::BF16)) ==
        std::vector<double>{256, -3});
  const std::vector<uint8_t> fp8 = {0x38, 0xBC, 0x01, 0x7E};
  CHECK(values(torch_cast(source_of(DType::F8_E4M3, fp8), DType::BF16)) ==
        std::vector<double>{1, -1.5, std::ldexp(1, -9), 448});
  const std::vector<double> e5m2 = values(torch_cast(source_of(DType::F8_E5M2, fp8), DType::F16));
  CHECK(e5m2[1] == -1);
  CHECK(e5m2[2] == std::ldexp(1, -16));
  CHECK(std::isnan(e5m2[3]));
  CHECK(std::isinf(
      values(torch_cast(source_of<uint8_t>(DType::F8_E5M2, {0x7C}), DType::BF16)).front()));
  CHECK(std::isnan(
      values(torch_cast(source_of<uint8_t>(DType::F8_E4M3, {0xFF}), DType::BF16)).front()));
  CHECK_THROWS_AS(torch_cast(source_of<uint8_t>(DType::F8_E8M0, {1}), DType::BF16), Error);
}

TEST_CASE("any tensor is one source of its elements, and a whole source is itself") {
  const Tensor matrix = Tensor::of_f32({2, 3}, std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(flat_source(matrix) == matrix.pieces().front().source);
  CHECK(values(flat_source(matrix.transpose(0, 1))) == std::vector<double>{1, 4, 2, 5, 3, 6});
  CHECK(values(flat_source(matrix.slice(1, 1, 2))) == std::vector<double>{2, 3, 5, 6});
  CHECK(values(flat_source(Tensor::zeros(DType::F32, {2}))) == std::vector<double>{0, 0});
}
