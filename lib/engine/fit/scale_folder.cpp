#include "lib/engine/fit/scale_folder.h"

#include <fmt/format.h>

#include <cmath>

#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

double factor(double value, double scale) {
  if (scale == 0) return 1;
  const double out = value / scale;
  return std::fabs(out - 1) < std::ldexp(1, -50) ? 1 : out;
}

}  // namespace

double most_common(const ScaleCounts& counts) {
  double best = 0;
  int64_t most = 0;
  for (const auto& [scale, pairs] : counts)
    if (scale != 0 && pairs >= most) best = scale, most = pairs;
  return best;
}

void ScaleFolder::fold(const std::string& name, Tensor& b, double value) {
  const double f = factor(value, scale_);
  if (f == 1) return;
  b = scaler_.scaled(b, f);
  std::vector<std::string>& names = factors_[f];
  if (names.empty() || names.back() != name) names.push_back(name);  // once for all its experts
}

void ScaleFolder::fold(const std::string& name, ExpertPair& pair, int64_t experts) {
  if (pair.b.shared && pair.scaling.size() > 1) {
    pair.b.parts.resize(static_cast<size_t>(experts), pair.b.parts.front());
    pair.b.shared = false;
  }
  for (size_t e = 0; e < pair.b.parts.size(); ++e)
    if (pair.b.parts[e].rank() != 0)
      fold(name, pair.b.parts[e], pair.scaling_of(static_cast<int64_t>(e)).value());
}

std::string ScaleFolder::text() const {
  std::string out;
  for (const auto& [f, names] : factors_)
    out += fmt::format("{}{}{} in {}", out.empty() ? "" : "; ", f,
                       is_power_of_two(f) ? " (exact)" : " (rounded once)", some_of(names));
  return out;
}

}  // namespace moelora::fit
