#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moelora::page {

// How values lie along an axis or between shades, as shares of it from 0 to 1. It holds all values
// but those that lie beyond the middle 99 % of them by more than twice its width: they lie at the
// ends, and remark() counts them.
class ValueScale {
 public:
  static ValueScale linear(const std::vector<double>& values);
  // Of those above 0; it spans so many decades at least, further down than the values.
  static ValueScale logarithmic(const std::vector<double>& values, double decades = 0);

  bool is_logarithmic() const { return log_; }
  double low() const { return value(0); }
  double high() const { return value(1); }
  double at(double value) const;               // clamped; REQUIRES: not NaN
  double value(double share) const;            // the other way
  bool is_above(double value) const;           // beyond the end, infinite included
  std::vector<double> ticks(int count) const;  // about so many round values

  // What the scale does not show as it is: "clipped: 2 tokens above 0.5, up to 30; 7 tokens of
  // exactly 0 lie at its low end". "" where it shows all.
  std::string remark(std::string_view noun) const;

 private:
  explicit ValueScale(bool log) : log_(log) {}
  void fill(const std::vector<double>& values);
  double along(double value) const;  // in the units of low_ and high_

  bool log_;
  double low_ = 0, high_ = 1;      // of a logarithmic scale powers of ten
  double least_ = 0, most_ = 0;    // of all values
  int64_t below_ = 0, above_ = 0;  // of those that have a place beyond the ends
  int64_t zeros_ = 0, not_finite_ = 0;
};

}  // namespace moelora::page
