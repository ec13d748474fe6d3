#include "lib/base/page/bars.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "lib/base/page/markup.h"

namespace moelora::page {
namespace {

constexpr double kWidth = 460, kStep = 32, kRoom = 90;  // kRoom: of the value's text

double largest_of(const std::vector<Bar>& bars) {
  double out = 0;
  for (const Bar& bar : bars)
    if (std::isfinite(bar.value)) out = std::max(out, bar.value);
  return out;
}

std::string drawn(const Bar& bar, size_t index, double largest) {
  const double top = kStep * static_cast<double>(index);
  const double share = !std::isfinite(bar.value) ? 1 : largest > 0 ? bar.value / largest : 0;
  const double width = std::max(1.0, share * (kWidth - kRoom));
  return fmt::format(
      "<text class=\"ink\" x=\"0\" y=\"{:.0f}\">{}</text>"
      "<rect class=\"{}\" x=\"0\" y=\"{:.0f}\" width=\"{:.1f}\" height=\"10\"/>"
      "<text x=\"{:.1f}\" y=\"{:.0f}\">{}</text>",
      top + 12, text(bar.label), std::isfinite(bar.value) ? bar.css_class : "kx", top + 17, width,
      width + 6, top + 27, text(bar.value_text));
}

}  // namespace

std::string bar_figure(const BarChart& chart) {
  if (chart.bars.empty()) return "";
  std::vector<Bar> bars = chart.bars;
  std::string explanation = chart.explanation;
  if (bars.size() > kMostBars) {
    explanation += fmt::format(" The largest {} of {}.", kMostBars, bars.size());
    std::stable_sort(bars.begin(), bars.end(),
                     [](const Bar& x, const Bar& y) { return x.value > y.value; });
    bars.resize(kMostBars);
  }
  const double largest = largest_of(bars);
  std::string body;
  for (size_t i = 0; i < bars.size(); ++i) body += drawn(bars[i], i, largest);
  return fmt::format(
      "<figure class=\"fit\"><b>{0}</b><svg viewBox=\"0 0 {1} {2}\" role=\"img\" "
      "aria-label=\"{0}\">{3}</svg><figcaption>{4}</figcaption></figure>\n",
      text(chart.title), kWidth, kStep * static_cast<double>(bars.size()) + 4, body,
      text(explanation));
}

}  // namespace moelora::page
