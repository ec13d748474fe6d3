#include "lib/compare/gram.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>

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
          const std::vector<double> gram = gram_matrix(both);
          std::vector<std::vector<double>> all = first.rows;
          all.insert(all.end(), second.rows.begin(), second.rows.end());
          const size_t n = all.size();
          REQUIRE(gram.size() == n * n);
          for (size_t i = 0; i < n; ++i)
            for (size_t j = 0; j < n; ++j) {
              double expected = 0;
              for (size_t c = 0; c < all[i].size(); ++c) expected += all[i][c] * all[j][c];
              REQUIRE(gram[i * n + j] == expected);  // exact: sums of small multiples of 1/64
            }
        }
}
