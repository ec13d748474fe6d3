#include "lib/adapter/scaling.h"

#include <doctest/doctest.h>

#include <cmath>
#include <vector>

#include "tests/io/error_text.h"

using namespace moelora;

namespace {

// alpha / divisor rounds to `target` for no double alpha: two neighbours lie on either side of it,
// and division by a positive number keeps the order.
bool proven_impossible(double target, double divisor) {
  double low = target * divisor;
  while (low / divisor >= target) low = std::nextafter(low, 0.0);
  double high = std::nextafter(low, HUGE_VAL);
  return low / divisor < target && high / divisor > target;
}

const std::vector<int64_t> kRanks = {1,  2,  3,  4,  5,  6,  7,  8,   10, 12,
                                     16, 24, 31, 32, 48, 64, 96, 128, 256};
const std::vector<double> kAlphas = {1,  2,    3,  5,   8,  11.313708498984761, 16, 0.1, 1e-5, 24,
                                     32, 33.3, 64, 128, 512};

struct Tally {
  int exact = 0, impossible = 0;
};

// with_rank() over all ranks and alphas: the same double, or a proof that there is none.
Tally rescale_all(bool rslora) {
  Tally tally;
  for (const int64_t from : kRanks)
    for (const int64_t to : kRanks)
      for (const double alpha : kAlphas) {
        const Scaling before{from, alpha, rslora};
        const auto r = static_cast<double>(to);
        try {
          const Scaling after = before.with_rank(to);
          REQUIRE(after.rank == to);
          REQUIRE(after.rslora == rslora);
          REQUIRE(after.value() == before.value());
          ++tally.exact;
        } catch (const Error&) {
          REQUIRE(proven_impossible(before.value(), rslora ? std::sqrt(r) : r));
          ++tally.impossible;
        }
      }
  return tally;
}

}  // namespace

TEST_CASE("the scale is alpha / r, and alpha / sqrt(r) with rsLoRA") {
  CHECK(Scaling{4, 8, false}.value() == 2.0);
  CHECK(Scaling{16, 8, false}.value() == 0.5);
  CHECK(Scaling{3, 1, false}.value() == 1.0 / 3.0);
  CHECK(Scaling{16, 8, true}.value() == 2.0);
  CHECK(Scaling{2, 1, true}.value() == 1.0 / std::sqrt(2.0));
}

TEST_CASE("another rank keeps the very double of the scale") {
  CHECK(Scaling{4, 8, false}.with_rank(8) == Scaling{8, 16, false});
  CHECK(Scaling{4, 8, true}.with_rank(16) == Scaling{16, 16, true});
  CHECK(Scaling{4, 8, false}.with_rank(4) == Scaling{4, 8, false});
  const Scaling doubled =
      Scaling{8, 16, true}.with_rank(16);  // not alpha 32, as PEFT's conversion says
  CHECK(doubled.value() == Scaling{8, 16, true}.value());
  CHECK(doubled.alpha == doctest::Approx(16 * std::sqrt(2.0)));
}

TEST_CASE("doubling a rank is always exact without rsLoRA") {
  for (const int64_t r : kRanks)
    for (const double alpha : kAlphas) {
      CAPTURE(r);
      CAPTURE(alpha);
      CHECK(Scaling{r, alpha, false}.with_rank(2 * r).alpha == 2 * alpha);
    }
}

TEST_CASE("where no alpha gives the same double, that is reported") {
  for (const bool rslora : {false, true}) {
    CAPTURE(rslora);
    const Tally tally = rescale_all(rslora);
    CHECK(tally.exact > 4000);
    CHECK(tally.impossible > 0);
    MESSAGE(tally.exact << " exact, " << tally.impossible << " without such an alpha");
  }
}

TEST_CASE("an impossible rank names the scale and the rank") {
  for (const double alpha : kAlphas)
    for (const int64_t to : kRanks) {
      const std::string text = error_text([&] { Scaling{2, alpha, true}.with_rank(to); });
      if (text.empty()) continue;
      CHECK(text.starts_with("scale: no alpha gives exactly the scale "));
      CHECK(text.ends_with(" at rank " + std::to_string(to)));
    }
}
