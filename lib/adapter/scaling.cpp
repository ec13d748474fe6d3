#include "lib/adapter/scaling.h"

#include <fmt/format.h>

#include <cmath>

#include "lib/base/error.h"

namespace moelora {

double Scaling::value() const {
  const auto r = static_cast<double>(rank);
  return alpha / (rslora ? std::sqrt(r) : r);
}

Scaling Scaling::with_rank(int64_t new_rank) const {
  if (new_rank == rank) return *this;
  const double target = value();
  const double ratio = static_cast<double>(new_rank) / static_cast<double>(rank);
  const double start = alpha * (rslora ? std::sqrt(ratio) : ratio);
  double below = start, above = start;
  for (int ulps = 0; ulps < 16; ++ulps) {
    for (double alpha_found : {below, above})
      if (Scaling out{new_rank, alpha_found, rslora}; out.value() == target) return out;
    below = std::nextafter(below, -HUGE_VAL);
    above = std::nextafter(above, HUGE_VAL);
  }
  throw Error("scale",
              fmt::format("no alpha gives exactly the scale {} at rank {}", target, new_rank));
}

}  // namespace moelora
