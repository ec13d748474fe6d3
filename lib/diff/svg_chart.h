#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moelora {

// A small chart as inline SVG: axes with round ticks, drawn in data coordinates. Colours are CSS
// classes of the page (axis, grid, dot, line, bar, mark), so that dark and light are the page's.
class SvgChart {
 public:
  struct Range {
    double low, high;
  };

  SvgChart(std::string_view title, std::string_view x_label, std::string_view y_label, Range x,
           Range y);

  void dots(const std::vector<std::pair<double, double>>& points, std::string_view css_class);
  void line(const std::vector<std::pair<double, double>>& points, std::string_view css_class);
  void bar(double x0, double x1, double height);

  std::string finish() const;

 private:
  double px(double x) const;
  double py(double y) const;
  void draw_axes();

  std::string title_, x_label_, y_label_, body_;
  Range x_, y_;
};

// The range that holds all values, a little wider; of equal values one around them.
SvgChart::Range range_of(const std::vector<double>& values);

// Round numbers in a range, about `count` of them: 1, 2 or 5 times a power of ten apart.
std::vector<double> ticks_of(SvgChart::Range range, int count);

// Text that is safe inside an element or a quoted attribute.
std::string html_escaped(std::string_view text);

}  // namespace moelora
