#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace moelora::page {

struct Bar {
  std::string label;
  double value;
  std::string value_text;  // beside it: "12.6 MB"
  std::string_view css_class = "bar";
};

// Bars from 0, one below another, each under its label. Of more than kMostBars the largest, and how
// many are left out.
struct BarChart {
  std::string title, explanation;
  std::vector<Bar> bars;
};
inline constexpr size_t kMostBars = 24;

std::string bar_figure(const BarChart& chart);

}  // namespace moelora::page
