#include "lib/numeric/dot_products.h"

#include <doctest/doctest.h>

#include <cmath>
#include <random>

namespace moelora::test {
namespace {

std::vector<float> random_floats(int64_t count, unsigned seed) {
  std::mt19937 random(seed);
  std::uniform_real_distribution<float> uniform(-1, 1);
  std::vector<float> out(static_cast<size_t>(count));
  for (float& value : out) value = uniform(random);
  return out;
}

}  // namespace

TEST_CASE("products of rows, the same bits in every way, whatever the sizes") {
  for (const int64_t n : {1, 3, 4, 9})
    for (const int64_t m : {1, 4, 7, 70})
      for (const int64_t k : {1, 15, 16, 33, 1500}) {
        CAPTURE(n);
        CAPTURE(m);
        CAPTURE(k);
        const std::vector<float> x = random_floats(n * k, 1), w = random_floats(m * k, 2);
        const int64_t stride = m + 3;
        std::vector<float> first;
        for (const MultiplyWay way : multiply_ways()) {
          std::vector<float> out(static_cast<size_t>(n * stride), 7);
          way({x.data(), n, w.data(), m, k, out.data(), stride});
          if (first.empty()) first = out;
          CHECK(out == first);
        }
        for (int64_t i = 0; i < n; ++i)
          for (int64_t j = 0; j < stride; ++j) {
            const float found = first[static_cast<size_t>(i * stride + j)];
            if (j >= m) {
              CHECK(found == 7);  // not touched
              continue;
            }
            double sum = 0, size = 0;
            for (int64_t c = 0; c < k; ++c) {
              const double product = double{x[static_cast<size_t>(i * k + c)]} *
                                     double{w[static_cast<size_t>(j * k + c)]};
              sum += product;
              size += std::abs(product);
            }
            CHECK(std::abs(static_cast<double>(found) - sum) <= 1e-6 * size);
          }
      }
}

}  // namespace moelora::test
