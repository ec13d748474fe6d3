#include "lib/compare/spectrum.h"

#include <doctest/doctest.h>

#include <cmath>
#include <numeric>

#include "lib/adapter/adapter_file.h"
#include "lib/compare/delta_sizes.h"

using namespace moelora;

namespace {

const std::string kData = MOELORA_TEST_DATA;

Deltas golden(const std::string& name) {
  LoadOptions options;
  options.base = kData + "/gpt_oss/base";
  return deltas_of(load_adapter(kData + "/gpt_oss/" + name, options).adapter);
}

double norm_of(const std::vector<double>& values) {
  return std::sqrt(std::inner_product(values.begin(), values.end(), values.begin(), 0.0));
}

// Of rank 2: rows of A and columns of B stand upright on each other.
Delta upright(float first, float second, double scale) {
  const float a[] = {first, 0, 0, 0, second, 0}, b[] = {1, 0, 0, 1, 0, 0, 0, 0};
  return {Tensor::of_f32({2, 3}, a), Tensor::of_f32({4, 2}, b), scale};
}

}  // namespace

TEST_CASE("singular values are those of the delta, its scale and the difference included") {
  const Spectrum s = spectrum_of({"x", 0, -1}, upright(3, 4, 2), upright(3, 4, 0.5));
  REQUIRE(s.a.size() == 2);
  CHECK(s.a[0] == doctest::Approx(8));
  CHECK(s.a[1] == doctest::Approx(6));
  CHECK(s.b[0] == doctest::Approx(2));
  CHECK(s.b[1] == doctest::Approx(1.5));
  REQUIRE(s.apart.size() == 4);
  CHECK(s.apart[0] == doctest::Approx(6));
  CHECK(s.apart[1] == doctest::Approx(4.5));
  CHECK(s.apart[2] < 1e-6);
}

TEST_CASE(
    "squares of the spectrum sum to norms and distances, fourth powers to the effective rank") {
  const Deltas a = golden("peft_params"), b = golden("peft_params_grouped_b_unmarked");
  const WeightDiff diff = weight_distances(a, b, {});
  REQUIRE(!diff.pairs.empty());
  for (const Distance& d : diff.pairs) {
    CAPTURE(to_string(d.key));
    const Spectrum s = spectrum_of(d.key, a.at(d.key), b.at(d.key));
    CHECK(norm_of(s.a) == doctest::Approx(d.norm_a));
    CHECK(norm_of(s.b) == doctest::Approx(d.norm_b));
    CHECK(norm_of(s.apart) == doctest::Approx(d.apart).epsilon(1e-6));
    double squares = 0, fourths = 0;
    for (const double value : s.a) {
      squares += value * value;
      fourths += std::pow(value, 4);
    }
    CHECK(effective_rank(squares, fourths) == doctest::Approx(d.effective_rank_a));
  }
}

TEST_CASE("there is no spectrum of what is not finite") {
  const Spectrum s = spectrum_of({"x", 0, -1}, upright(std::nanf(""), 1, 1), upright(3, 4, 1));
  CHECK(s.a.empty());
  CHECK(s.apart.empty());
  CHECK(s.b.size() == 2);
}

TEST_CASE("sizes of single deltas are those that a comparison measures") {
  const Deltas a = golden("peft_params");
  const std::vector<DeltaSize> sizes = delta_sizes(a, {});
  const WeightDiff diff = weight_distances(a, golden("peft_params_grouped_b_unmarked"), {});
  REQUIRE(sizes.size() == a.size());
  REQUIRE(sizes.size() == diff.pairs.size());
  for (size_t i = 0; i < sizes.size(); ++i) {
    CAPTURE(to_string(sizes[i].key));
    CHECK(sizes[i].key == diff.pairs[i].key);
    CHECK(sizes[i].norm == doctest::Approx(diff.pairs[i].norm_a).epsilon(1e-12));
    CHECK(sizes[i].effective_rank == doctest::Approx(diff.pairs[i].effective_rank_a));
    CHECK(sizes[i].rank == a.at(sizes[i].key).a.dim(0));
  }
}

TEST_CASE("the size of a delta with a NaN is not 0, and that of zeros is") {
  const Deltas odd = {{{"nan", 0, -1}, upright(std::nanf(""), 1, 1)},
                      {{"zero", 0, -1}, upright(0, 0, 1)}};
  const std::vector<DeltaSize> sizes = delta_sizes(odd, {});
  CHECK(std::isnan(sizes[0].norm));
  CHECK(sizes[1].norm == 0);
  CHECK(sizes[1].effective_rank == 0);
}
