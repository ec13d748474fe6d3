#pragma once

#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/base/page/scale.h"

namespace moelora::page {

struct Axis {
  std::string label;
  ValueScale scale;
  bool whole = false;  // its values are whole numbers, and so are its ticks
};

using Points = std::vector<std::pair<double, double>>;

// More than these would only blacken a chart and swell the page: density() draws them.
inline constexpr size_t kMostDots = 1500;

// A chart of two axes as inline SVG, drawn in data coordinates. What its scales do not show as it
// is, its caption says. Colors are CSS classes of the page.
class Plot {
 public:
  Plot(std::string title, Axis x, Axis y);

  // Dots; where there are many, how many lie in each cell of a raster, on a logarithmic scale. No
  // point is left out, whatever their number.
  void scatter(const Points& points);
  void rings(const Points& points);  // around single points
  void line(const Points& points, std::string_view css_class);
  void bar(double x0, double x1, double height, std::string_view css_class = "bar");

  // A line of the key under the chart.
  void key(std::string_view css_class, std::string_view label);

  // "<figure>...". `explanation` says what one sees.
  std::string finish(std::string_view explanation) const;

 private:
  double px(double x) const;
  double py(double y) const;
  void draw_axes();
  void density(const Points& points);

  std::string title_, body_, key_, remark_;
  Axis x_, y_;
};

// How many of `values` lie in each of some bins, both axes logarithmic. NaN is left out.
std::string histogram(std::string title, std::string x_label, std::string_view noun,
                      const std::vector<double>& values);

}  // namespace moelora::page
