#include "lib/base/page/scale.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <iterator>

#include "lib/base/page/markup.h"

namespace moelora::page {
namespace {

constexpr size_t kFewestToClip = 8;
constexpr size_t kFewestTicks = 3;

// 1, 2 or 5 times a power of ten, at least `rough`.
double round_step(double rough) {
  const double power = std::pow(10, std::floor(std::log10(rough)));
  for (const double factor : {1.0, 2.0, 5.0})
    if (rough <= factor * power) return factor * power;
  return 10 * power;
}

std::vector<double> round_values(double low, double high, int count) {
  const double step = round_step((high - low) / count);
  std::vector<double> out;
  const double first = std::ceil(low / step);
  for (int i = 0; i <= 2 * count && (first + i) * step <= high; ++i) {
    const double value = (first + i) * step;
    out.push_back(std::fabs(value) < step / 1e6 ? 0 : value);
  }
  return out;
}

}  // namespace

ValueScale ValueScale::linear(const std::vector<double>& values) {
  ValueScale out(false);
  out.fill(values);
  return out;
}

ValueScale ValueScale::logarithmic(const std::vector<double>& values, double decades) {
  ValueScale out(true);
  out.fill(values);
  out.low_ = std::min(out.low_, out.high_ - decades);
  return out;
}

void ValueScale::fill(const std::vector<double>& values) {
  std::vector<double> all;
  for (const double value : values) {
    const bool finite = std::isfinite(value), is_zero = log_ && value <= 0;
    not_finite_ += finite ? 0 : 1;
    zeros_ += finite && is_zero ? 1 : 0;
    if (finite && !is_zero) all.push_back(along(value));
  }
  if (all.empty()) return;
  std::sort(all.begin(), all.end());
  low_ = all.front();
  high_ = all.back();
  least_ = log_ ? std::pow(10, low_) : low_;
  most_ = log_ ? std::pow(10, high_) : high_;
  if (all.size() >= kFewestToClip) {
    const size_t outer = std::max<size_t>(1, all.size() / 200);
    const double inner_low = all[outer], inner_high = all[all.size() - 1 - outer];
    const double inner = inner_high - inner_low;
    if (inner > 0 && high_ - inner_high > 2 * inner)
      high_ = *std::prev(std::upper_bound(all.begin(), all.end(), inner_high + 2 * inner));
    if (inner > 0 && inner_low - low_ > 2 * inner)
      low_ = *std::lower_bound(all.begin(), all.end(), inner_low - 2 * inner);
    below_ = std::lower_bound(all.begin(), all.end(), low_) - all.begin();
    above_ = all.end() - std::upper_bound(all.begin(), all.end(), high_);
  }
  const double margin = high_ > low_ ? (high_ - low_) * 0.02
                        : log_       ? 0.3
                                     : std::max(1e-6, std::fabs(low_) * 0.1);
  low_ -= margin;
  high_ += margin;
}

double ValueScale::along(double value) const { return log_ ? std::log10(value) : value; }

double ValueScale::at(double value) const {
  if (log_ && value <= 0) return 0;
  return std::clamp((along(value) - low_) / (high_ - low_), 0.0, 1.0);
}

double ValueScale::value(double share) const {
  const double at = low_ + share * (high_ - low_);
  return log_ ? std::pow(10, at) : at;
}

bool ValueScale::is_above(double value) const { return value > high(); }

std::vector<double> ValueScale::ticks(int count) const {
  if (!log_) return round_values(low_, high_, count);
  const double step = std::max(1.0, std::ceil((high_ - low_) / count));
  std::vector<double> powers, parts;
  for (double power = std::ceil(low_ / step) * step; power <= high_; power += step)
    powers.push_back(std::pow(10, power));
  if (powers.size() >= kFewestTicks || high_ - low_ >= 2) return powers;
  for (double power = std::floor(low_); power <= high_; ++power)
    for (const double factor : {1.0, 2.0, 5.0})
      if (const double value = factor * std::pow(10, power); value >= low() && value <= high())
        parts.push_back(value);
  return parts.size() >= kFewestTicks ? parts : round_values(low(), high(), count);
}

std::string ValueScale::remark(std::string_view noun) const {
  std::vector<std::string> parts;
  if (above_ > 0)
    parts.push_back(fmt::format("clipped: {} {} above {}, up to {}", above_, noun, number(high()),
                                number(most_)));
  if (below_ > 0)
    parts.push_back(fmt::format("clipped: {} {} below {}, down to {}", below_, noun, number(low()),
                                number(least_)));
  if (zeros_ > 0)
    parts.push_back(fmt::format("{} {} of exactly 0 lie at its low end", zeros_, noun));
  if (not_finite_ > 0) parts.push_back(fmt::format("{} {} not finite", not_finite_, noun));
  return fmt::format("{}", fmt::join(parts, "; "));
}

}  // namespace moelora::page
