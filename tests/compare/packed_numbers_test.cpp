// The arithmetic of the packed check, each part against literal values or a plain loop.

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "lib/base/cast.h"
#include "lib/compare/bits/hypotheses.h"
#include "lib/compare/bits/products.h"
#include "lib/compare/bits/rounding.h"

using namespace moelora;
using namespace moelora::packed;

TEST_CASE("every 16-bit value has the value lib/base gives it, and every cast its bits") {
  for (const DType type : {DType::F16, DType::BF16}) {
    std::vector<std::byte> bits(2 << 16), wide(4 << 16), back(2 << 16);
    for (uint32_t i = 0; i < 65536; ++i) {
      const auto word = static_cast<uint16_t>(i);
      std::memcpy(bits.data() + 2 * i, &word, 2);
    }
    packed::cast(type, DType::F32, 65536, bits.data(), wide.data());
    std::vector<std::byte> expected(4 << 16);
    cast_elements(type, DType::F32, 65536, bits.data(), expected.data());
    int wrong = 0;
    for (int64_t i = 0; i < 65536; ++i) {
      const uint64_t found = element(wide.data(), 4, i), want = element(expected.data(), 4, i);
      const bool nan = is_nan(DType::F32, want);
      wrong += nan ? !is_nan(DType::F32, found) : found != want;
      const double value = value_of(type, static_cast<uint64_t>(i));
      if (!nan) wrong += bits_of(type, value) != static_cast<uint64_t>(i);
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("narrowing rounds to nearest, ties to even, as lib/base does for a million values") {
  std::mt19937_64 rng(5);
  std::vector<uint32_t> in(1 << 20);
  for (uint32_t& v : in) v = static_cast<uint32_t>(rng());
  for (uint32_t i = 0; i < 4096; ++i) in[i] = 0x3F800000U + (i << 12U);  // many ties
  const auto* from = reinterpret_cast<const std::byte*>(in.data());
  const auto count = static_cast<int64_t>(in.size());
  for (const DType to : {DType::F16, DType::BF16}) {
    std::vector<std::byte> found(in.size() * 2), expected(in.size() * 2);
    packed::cast(DType::F32, to, count, from, found.data());
    cast_elements(DType::F32, to, count, from, expected.data());
    int wrong = 0;
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t a = element(found.data(), 2, i), b = element(expected.data(), 2, i);
      wrong += is_nan(to, b) ? !is_nan(to, a) : a != b;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("a scale folded into lora_B is rounded as torch does, or once") {
  // 1.0078125 * 1.7: torch goes through F32.
  const uint64_t b = bits_of(DType::BF16, 1.0078125);
  CHECK(value_of(DType::BF16, folded(DType::BF16, b, 1.7, FoldRounding::once)) == 1.7109375);
  CHECK(folded(DType::BF16, b, 2, FoldRounding::torch) == bits_of(DType::BF16, 2.015625));
  CHECK(is_infinite(DType::BF16,
                    folded(DType::BF16, bits_of(DType::BF16, 3e38), 2, FoldRounding::torch)));
  int different = 0;
  for (uint64_t bits = 0x3F80; bits < 0x4000; ++bits)
    for (double s : {1.7, 0.1, 1.0 / 3})
      different += folded(DType::BF16, bits, s, FoldRounding::once) !=
                   folded(DType::BF16, bits, s, FoldRounding::torch);
  CHECK(different < 8);  // the two are rarely not the same
}

TEST_CASE("a scale's fault has the name of what was done") {
  CHECK(scale_fault(0.25, 4, 16, 16) == Mistake::scale_missing);
  CHECK(scale_fault(4, 4, 9, 9) == Mistake::scale_twice);
  CHECK(scale_fault(3, 2, 9, 9) == Mistake::scale_rslora);
  CHECK(scale_fault(0.5, 3, 8, 16) == Mistake::scale_of_padded_rank);
  CHECK(scale_fault(0.7, 2, 9, 9) == Mistake::scale);
}

TEST_CASE("orders of experts have names") {
  CHECK(order_of({{2, 5}, {5, 2}}, 12, true) == Mistake::experts_exchanged);
  CHECK(order_of({{0, 2}, {1, 3}, {2, 0}, {3, 1}}, 4, true) == Mistake::experts_rotated);
  CHECK(order_of({{1, 0}, {2, 0}, {3, 0}}, 4, true) == Mistake::one_for_all);
  CHECK(order_of({{1, 0}, {2, 0}, {3, 0}}, 4, false) == Mistake::wrong_side_shared);
  CHECK(order_of({{0, 3}, {3, 1}, {1, 0}}, 4, true) == Mistake::expert_permutation);
}

namespace {

MatrixPtr random_matrix(int64_t rank, int64_t width, std::mt19937_64& rng) {
  std::normal_distribution<double> normal;
  Matrix out{DType::F32, rank, width, {}};
  for (int64_t i = 0; i < rank * width; ++i) out.bits.push_back(bits_of(DType::F32, normal(rng)));
  return std::make_shared<Matrix>(out);
}

// scale B A, element by element.
std::vector<double> dense(const PairValues& pair) {
  std::vector<double> out;
  for (int64_t o = 0; o < pair.b->width; ++o)
    for (int64_t i = 0; i < pair.a->width; ++i) {
      double sum = 0;
      for (int64_t k = 0; k < pair.a->rank; ++k) sum += pair.b->value(k, o) * pair.a->value(k, i);
      out.push_back(pair.scale * sum);
    }
  return out;
}

}  // namespace

TEST_CASE("the error of a delta is that of the whole matrices") {
  std::mt19937_64 rng(6);
  const PairValues source{random_matrix(3, 11, rng), random_matrix(3, 7, rng), 2};
  const PairValues packed{random_matrix(5, 11, rng), random_matrix(5, 7, rng), 0.5};
  const std::vector<double> x = dense(packed), y = dense(source);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < y.size(); ++i) {
    difference += (x[i] - y[i]) * (x[i] - y[i]);
    norm += y[i] * y[i];
  }
  CHECK(*delta_error(packed, source) == doctest::Approx(std::sqrt(difference / norm)));
  CHECK(*delta_error(source, source) < 1e-7);
  CHECK(*delta_error({source.a, source.b, 2.5}, source) == doctest::Approx(0.25));
  CHECK(*delta_error({}, source) == 1);
  CHECK(std::isinf(*delta_error(source, {})));
  CHECK(*delta_error({}, {}) == 0);
  CHECK_FALSE(delta_error({source.b, source.a, 1}, source));
  const PairValues huge{source.a, source.b, std::numeric_limits<double>::infinity()};
  CHECK(std::isinf(*delta_error(huge, source)));
}
