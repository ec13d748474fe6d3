#include "lib/base/low_rank.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "lib/base/cast.h"

using namespace moelora;

namespace {

// A made factor, and its rows as the definition says.
struct Made {
  FactorValues values;
  std::vector<std::byte> bytes;
  std::vector<std::vector<double>> rows;
};

Made made(DType dtype, int64_t rows, int64_t columns, bool across, int seed) {
  Made out;
  std::vector<double> exact(static_cast<size_t>(rows * columns));
  for (size_t i = 0; i < exact.size(); ++i)  // small integers over 8: exact in every dtype
    exact[i] = static_cast<double>((static_cast<int>(i) * 7 + seed) % 13 - 6) / 8;
  out.bytes.resize(exact.size() * static_cast<size_t>(dtype_bytes(dtype)));
  if (dtype == DType::F64)
    std::memcpy(out.bytes.data(), exact.data(), out.bytes.size());
  else
    cast_elements(DType::F64, dtype, rows * columns,
                  reinterpret_cast<const std::byte*>(exact.data()), out.bytes.data());
  out.rows.assign(static_cast<size_t>(rows), std::vector<double>(static_cast<size_t>(columns)));
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      out.rows[static_cast<size_t>(r)][static_cast<size_t>(c)] =
          exact[static_cast<size_t>(across ? c * rows + r : r * columns + c)];
  out.values = {dtype, out.bytes.data(), rows, columns, across};
  return out;
}

}  // namespace

TEST_CASE("a Gram matrix holds every inner product, for every dtype, orientation and odd size") {
  for (const DType dtype : {DType::F64, DType::F32, DType::F16, DType::BF16})
    for (const bool across : {false, true})
      for (const int64_t rows : {1, 3, 8, 16, 21})
        for (const int64_t columns : {1, 63, 64, 65, 200}) {
          const Made first = made(dtype, rows, columns, across, 1),
                     second = made(DType::F32, 5, columns, !across, 4);
          const std::vector<FactorValues> both{first.values, second.values};
          const Gram gram = gram_of(both);
          std::vector<std::vector<double>> all = first.rows;
          all.insert(all.end(), second.rows.begin(), second.rows.end());
          const size_t n = all.size();
          REQUIRE(gram.rows() == static_cast<int64_t>(n));
          for (size_t i = 0; i < n; ++i)
            for (size_t j = 0; j < n; ++j) {
              double expected = 0;
              for (size_t c = 0; c < all[i].size(); ++c) expected += all[i][c] * all[j][c];
              REQUIRE(gram.at(static_cast<int64_t>(i), static_cast<int64_t>(j)) ==
                      expected);  // exact: sums of small multiples of 1/64
            }
        }
}

TEST_CASE("columns in parts add up to the whole, and what is not finite stays so") {
  const Made whole = made(DType::BF16, 5, 200, false, 3);
  const std::vector<FactorValues> one{whole.values};
  Gram parts(5);
  for (int64_t first = 0; first < 200; first += 70) {
    const int64_t columns = std::min<int64_t>(70, 200 - first);
    std::vector<std::byte> bytes;
    for (int64_t r = 0; r < 5; ++r)
      bytes.insert(bytes.end(), whole.bytes.begin() + 2 * (r * 200 + first),
                   whole.bytes.begin() + 2 * (r * 200 + first + columns));
    const std::vector<FactorValues> part{{DType::BF16, bytes.data(), 5, columns, false}};
    parts.add(part);
  }
  const Gram gram = gram_of(one);
  for (int64_t i = 0; i < 5; ++i)
    for (int64_t j = 0; j < 5; ++j) CHECK(parts.at(i, j) == gram.at(i, j));
  for (const DType dtype : {DType::F32, DType::F16, DType::BF16})
    for (const double bad : {HUGE_VAL, std::nan("")}) {
      const double values[] = {1, bad, 2};
      std::vector<std::byte> bytes(static_cast<size_t>(3 * dtype_bytes(dtype)));
      cast_elements(DType::F64, dtype, 3, reinterpret_cast<const std::byte*>(values), bytes.data());
      const std::vector<FactorValues> row{{dtype, bytes.data(), 1, 3, false}};
      CHECK_FALSE(std::isfinite(gram_of(row).at(0, 0)));
    }
}

TEST_CASE("every F16 and BF16 counts with its value, subnormals too") {
  for (const DType dtype : {DType::F16, DType::BF16}) {
    std::vector<std::byte> bits(2 << 16), doubles(8 << 16);
    for (uint32_t i = 0; i < 65536; ++i) std::memcpy(bits.data() + 2 * i, &i, 2);
    cast_elements(dtype, DType::F64, 65536, bits.data(), doubles.data());
    int wrong = 0;
    for (size_t i = 0; i < 65536; ++i) {
      double value = 0;
      std::memcpy(&value, doubles.data() + 8 * i, 8);
      if (!std::isfinite(value)) continue;
      const std::vector<FactorValues> one{{dtype, bits.data() + 2 * i, 1, 1, false}};
      wrong += gram_of(one).at(0, 0) != value * value;
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("the distance of two products is that of the whole matrices") {
  const Made a1 = made(DType::F32, 3, 11, false, 1), b1 = made(DType::F32, 3, 7, true, 2);
  const Made a2 = made(DType::F64, 5, 11, false, 3), b2 = made(DType::BF16, 5, 7, true, 4);
  const auto dense = [](const Made& a, const Made& b, double scale) {
    std::vector<double> out(size_t{7} * 11);
    for (size_t o = 0; o < 7; ++o)
      for (size_t i = 0; i < 11; ++i)
        for (size_t k = 0; k < a.rows.size(); ++k)
          out[o * 11 + i] += scale * b.rows[k][o] * a.rows[k][i];
    return out;
  };
  const std::vector<double> x = dense(a1, b1, 2), y = dense(a2, b2, -0.5);
  double xx = 0, yy = 0, xy = 0, apart = 0;
  for (size_t i = 0; i < x.size(); ++i) {
    xx += x[i] * x[i], yy += y[i] * y[i], xy += x[i] * y[i];
    apart += (x[i] - y[i]) * (x[i] - y[i]);
  }
  const FactorValues a[] = {a1.values, a2.values}, b[] = {b1.values, b2.values};
  const ProductDistance d = distance_of(RankOneParts(a, b), 3, 2, -0.5);
  CHECK(d.x == doctest::Approx(std::sqrt(xx)));
  CHECK(d.y == doctest::Approx(std::sqrt(yy)));
  CHECK(d.inner == doctest::Approx(xy));
  CHECK(d.apart == doctest::Approx(std::sqrt(apart)));
  const FactorValues twice_a[] = {a1.values, a1.values}, twice_b[] = {b1.values, b1.values};
  CHECK(distance_of(RankOneParts(twice_a, twice_b), 3, 2, 2).apart == 0);
  CHECK(distance_of(RankOneParts(twice_a, twice_b), 3, 2, 2.5).relative() == doctest::Approx(0.25));
}
