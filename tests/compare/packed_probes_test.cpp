// Exact sums of factors: the prime field, probes in double and in integers; and the size of a
// difference of two deltas.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <random>

#include "lib/compare/bits/delta.h"
#include "lib/compare/bits/field.h"
#include "lib/compare/bits/probes.h"
#include "lib/compare/bits/rounding.h"

using namespace moelora;
using namespace moelora::packed;

namespace {

uint64_t power(uint64_t base, uint64_t exponent) {
  Field out = Field::of(int64_t{1}), b = Field::of(static_cast<int64_t>(base));
  for (; exponent != 0; exponent >>= 1U) {
    if ((exponent & 1U) != 0) out = out * b;
    b = b * b;
  }
  return out.residue();
}

}  // namespace

TEST_CASE("the field's prime is prime, and 2 generates all of it") {
  const uint64_t p = Field::kPrime, q = (p - 1) / 2;
  for (const uint64_t base : {2U, 3U, 5U, 7U, 11U, 13U, 17U, 19U, 23U, 29U, 31U, 37U})
    CHECK(power(base, p - 1) == 1);  // Fermat; p was found prime by Miller-Rabin for all these
  CHECK(power(2, q) == p - 1);       // p - 1 = 2q with q prime: the order of 2 is p - 1
  CHECK(power(2, 2) == 4);
  CHECK(q % 2 == 1);
}

TEST_CASE("numbers keep their sums and products in the field") {
  std::mt19937_64 rng(4);
  std::uniform_real_distribution<double> mantissa(-1, 1);
  for (int i = 0; i < 1000; ++i) {
    const auto small = [&] {
      return std::ldexp(std::nearbyint(mantissa(rng) * 65536), static_cast<int>(rng() % 10) - 130);
    };
    const double a = small(), b = small(), c = small();
    CHECK(Field::of(a + b) == Field::of(a) + Field::of(b));
    CHECK(Field::of(a - b) == Field::of(a) - Field::of(b));
    CHECK(Field::of(a * c * 0x1p200) == Field::of(a) * Field::of(c) * Field::power_of_two(200));
  }
  const Field third = Field::of(int64_t{3}).inverse();
  CHECK(third * Field::of(int64_t{3}) == Field::of(int64_t{1}));
  CHECK(Field::of(int64_t{-5}) + Field::of(int64_t{5}) == Field());
  CHECK(Field::of(0x1p-1074) * Field::power_of_two(1074) == Field::of(int64_t{1}));
}

namespace {

ProbeSums sums_of(DType dtype, Side side, int64_t rank, int64_t width,
                  const std::vector<double>& values) {  // in the part's order
  std::vector<std::byte> bytes(values.size() * static_cast<size_t>(dtype_bytes(dtype)));
  for (size_t i = 0; i < values.size(); ++i) {
    const uint64_t b = bits_of(dtype, values[i]);
    std::memcpy(bytes.data() + i * static_cast<size_t>(dtype_bytes(dtype)), &b,
                static_cast<size_t>(dtype_bytes(dtype)));
  }
  ProbeSums out;
  add_probes({bytes.data(), rank, dtype}, side, width, 0, out);
  return out;
}

}  // namespace

TEST_CASE("probe sums are exact in double and in the field alike") {
  std::mt19937_64 rng(8);
  std::normal_distribution<double> normal;
  const int64_t rank = 5, width = 3000;
  std::vector<double> values(static_cast<size_t>(rank * width));
  for (double& v : values) v = value_of(DType::BF16, bits_of(DType::BF16, normal(rng)));
  for (const Side side : {Side::A, Side::B}) {
    const ProbeSums fast = sums_of(DType::BF16, side, rank, width, values);
    const ProbeSums slow = sums_of(DType::F32, side, rank, width, values);
    CHECK(fast.by_doubles);
    CHECK_FALSE(slow.by_doubles);  // F32 may have bits that double has no room for
    CHECK(fast.of == slow.of);
  }
  values[7] = 0x1p100;  // a spread that no double holds
  CHECK_FALSE(sums_of(DType::BF16, Side::A, rank, width, values).by_doubles);
  CHECK(sums_of(DType::BF16, Side::A, rank, width, values).of ==
        sums_of(DType::F32, Side::A, rank, width, values).of);
  values[7] = HUGE_VAL;
  CHECK_FALSE(sums_of(DType::BF16, Side::A, rank, width, values).finite);
}

TEST_CASE("magnitudes are those of a plain loop, whatever the number of elements") {
  std::mt19937_64 rng(5);
  for (const int bytes : {2, 4, 8})
    for (int64_t count = 0; count < 70; ++count) {
      std::vector<std::byte> data(static_cast<size_t>(count * bytes) + 1);
      for (std::byte& b : data) b = static_cast<std::byte>(rng() % 3 == 0 ? 0 : rng());
      uint64_t largest = 0, smallest = std::numeric_limits<uint64_t>::max();
      for (int64_t i = 0; i < count; ++i) {
        const uint64_t m = element(data.data(), bytes, i) & ((uint64_t{1} << (8 * bytes - 1)) - 1);
        largest = std::max(largest, m);
        if (m != 0) smallest = std::min(smallest, m);
      }
      const Magnitudes found = magnitudes(bytes, data.data(), count);
      CHECK(found.largest == largest);
      CHECK(found.smallest == (largest == 0 ? 0 : smallest));
    }
}

TEST_CASE("elements become the doubles that they are") {
  for (const DType type : {DType::F16, DType::BF16}) {
    std::vector<std::byte> bits(2 << 16);
    std::vector<double> found(1 << 16);
    for (uint32_t i = 0; i < 65536; ++i) std::memcpy(bits.data() + 2 * i, &i, 2);
    to_doubles(type, bits.data(), 65536, found.data());
    int wrong = 0;
    for (uint64_t i = 0; i < 65536; ++i)
      if (!is_nan(type, i) && !is_infinite(type, i)) wrong += found[i] != value_of(type, i);
    CHECK(wrong == 0);
  }
}

TEST_CASE("windows of x add up to the whole") {
  std::mt19937_64 rng(2);
  const int64_t rank = 3, width = 2500;
  std::vector<std::byte> bytes(static_cast<size_t>(rank * width * 2));
  for (size_t i = 0; i < bytes.size(); i += 2) {
    const auto b = static_cast<uint16_t>(0x3F00U + rng() % 256 + (rng() % 2 << 15U));
    std::memcpy(bytes.data() + i, &b, 2);
  }
  ProbeSums whole, parts;  // B: [x][k], so that a window of x is one run
  add_probes({bytes.data(), rank, DType::BF16}, Side::B, width, 0, whole);
  for (int64_t x = 0; x < width; x += 700)
    add_probes({bytes.data() + x * rank * 2, rank, DType::BF16}, Side::B,
               std::min<int64_t>(700, width - x), x, parts);
  CHECK(whole.of == parts.of);
}

TEST_CASE("the certificate is what the widest sum needs") {
  // One element of 8 bits times 11 bits, 19 bits in all, leaves 34 for the spread and the terms.
  CHECK(exact_terms(DType::BF16, 1, 1) == int64_t{1} << 34);
  CHECK(exact_terms(DType::BF16, 0x1p-20, 0x1p7) == 128);
  CHECK(exact_terms(DType::BF16, 0x1p-20, 0x1p14) == 1);
  CHECK(exact_terms(DType::BF16, 0x1p-20, 0x1p15) == 0);
  CHECK(exact_terms(DType::F32, 0x1p-20, 1) == 0);
  CHECK(exact_terms(DType::F16, 0x1p-24, 0x1p-10) == int64_t{1} << 27);  // subnormal
  // 2^n terms of the largest element and entry, and one of the smallest, do fit: none more does.
  const double largest = 0x1.FEp7, smallest = 0x1.02p-20;
  const auto terms = static_cast<double>(exact_terms(DType::BF16, smallest, largest));
  CHECK(terms * largest * 2047 < std::ldexp(1, 53 - 27));
  CHECK(2 * terms * largest * 2047 > std::ldexp(1, 53 - 27));
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
