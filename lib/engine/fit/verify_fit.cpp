#include "lib/engine/fit/verify_fit.h"

#include <fmt/format.h>

#include <cmath>

#include "lib/base/error.h"
#include "lib/base/parallel.h"
#include "lib/base/scale.h"
#include "lib/engine/fit/deltas.h"

namespace moelora {
namespace {

// Half a unit in the last place, relative, of a type's normal numbers.
double roundoff(DType dtype) {
  return std::ldexp(1, dtype == DType::BF16  ? -8
                       : dtype == DType::F16 ? -11
                       : dtype == DType::F32 ? -24
                                             : -53);
}

// What one rounding of each element of lora_B may do, relative.
double tolerance(const Delta& meant, const Delta& fitted) {
  const double ratio = meant.scale / fitted.scale;
  const bool exact = fitted.scale == 0 || std::fabs(ratio - 1) < 1e-12 || is_power_of_two(ratio);
  const bool tiny =
      fitted.b.dtype() == DType::F16;  // a power of two can leave F16's normal numbers
  return exact && !tiny ? 0 : 1.01 * roundoff(fitted.b.dtype());
}

void compare(const std::string& name, const Delta& meant, const Delta& fitted) {
  const ProductDistance d = delta_distance(meant, fitted);
  if (!std::isfinite(d.x) && !std::isfinite(d.y)) return;
  const double rounding = tolerance(meant, fitted) * std::max(d.x, d.x_parts);
  if (!(d.apart <= rounding))
    throw Error(name, fmt::format("verification failed: its delta is off by {:.3g} of its norm, "
                                  "rounding explains {:.3g}",
                                  d.relative(), d.x > 0 ? rounding / d.x : 0));
}

void must_be_zero(const std::string& name, const Delta& fitted) {
  if (const double found = delta_norm(fitted); found != 0)
    throw Error(
        name, fmt::format("verification failed: its delta has the norm {:.3g}, expected 0", found));
}

}  // namespace

int64_t verify_fit(const Adapter& meant, const Adapter& fitted, int threads) {
  const Deltas before = all_deltas(meant), after = all_deltas(fitted);
  for (const auto& entry : before)
    if (after.count(entry.first) == 0)
      throw Error(to_string(entry.first), "verification failed: it has no delta any more");
  std::vector<const Deltas::value_type*> all;
  for (const auto& entry : after) all.push_back(&entry);
  parallel_for(static_cast<int64_t>(all.size()), threads, [&](int64_t i, int) {
    const auto& [key, delta] = *all[static_cast<size_t>(i)];
    const auto found = before.find(key);
    if (found == before.end())
      must_be_zero(to_string(key), delta);
    else
      compare(to_string(key), found->second, delta);
  });
  return static_cast<int64_t>(all.size());
}

}  // namespace moelora
