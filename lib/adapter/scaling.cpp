#include "lib/adapter/scaling.h"

#include <fmt/format.h>

#include <cmath>
#include <optional>

#include "lib/base/error.h"

namespace moelora {

double Scaling::value() const {
  const auto r = static_cast<double>(rank);
  return alpha / (rslora ? std::sqrt(r) : r);
}

namespace {

// The alpha nearest `start` with which `scaling` has exactly this value; nullopt when none has.
std::optional<double> exact_alpha(Scaling scaling, double start, double value) {
  double below = start, above = start;
  for (int ulps = 0; ulps < 16; ++ulps) {
    for (double alpha : {below, above}) {
      scaling.alpha = alpha;
      if (scaling.value() == value) return alpha;
    }
    below = std::nextafter(below, -HUGE_VAL);
    above = std::nextafter(above, HUGE_VAL);
  }
  return std::nullopt;
}

}  // namespace

Scaling Scaling::with_rank(int64_t new_rank) const {
  if (new_rank == rank) return *this;
  const double target = value();
  const double ratio = static_cast<double>(new_rank) / static_cast<double>(rank);
  const double start = alpha * (rslora ? std::sqrt(ratio) : ratio);
  if (const auto found = exact_alpha({new_rank, 0, rslora}, start, target))
    return {new_rank, *found, rslora};
  throw Error("scale",
              fmt::format("no alpha gives exactly the scale {} at rank {}", target, new_rank));
}

Scaling Scaling::plain(int64_t rank, double value) {
  const double alpha = value * static_cast<double>(rank);
  return {rank, exact_alpha({rank, 0, false}, alpha, value).value_or(alpha), false};
}

}  // namespace moelora
