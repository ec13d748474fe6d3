#include "lib/base/page/plot.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/base/page/markup.h"

namespace moelora::page {
namespace {

constexpr double kWidth = 460, kHeight = 280;
constexpr double kLeft = 76, kRight = 12, kTop = 8, kBottom = 44;
constexpr int kColumns = 72, kRows = 48;  // of the raster of a density
constexpr int kShades = 9;
constexpr int kBins = 40;  // of a histogram

// The shade of a count, by its logarithm.
int shade_of(int64_t count, int64_t most) {
  if (most <= 1) return kShades;
  const double share = std::log(static_cast<double>(count)) / std::log(static_cast<double>(most));
  return 1 + static_cast<int>(std::lround(share * (kShades - 1)));
}

std::string tick_text(double value) { return fmt::format("{:.6g}", value); }

std::vector<double> ticks_of(const Axis& axis, int count) {
  std::vector<double> out = axis.scale.ticks(count);
  if (axis.whole) std::erase_if(out, [](double tick) { return tick != std::floor(tick); });
  return out;
}

int cell_of(double share, int cells) {
  return std::min(cells - 1, static_cast<int>(share * cells));
}

}  // namespace

Plot::Plot(std::string title, Axis x, Axis y)
    : title_(std::move(title)), x_(std::move(x)), y_(std::move(y)) {
  draw_axes();
}

double Plot::px(double x) const { return kLeft + x_.scale.at(x) * (kWidth - kLeft - kRight); }

double Plot::py(double y) const {
  return kHeight - kBottom - y_.scale.at(y) * (kHeight - kTop - kBottom);
}

void Plot::draw_axes() {
  for (const double x : ticks_of(x_, 6))
    body_ += fmt::format(
        "<line class=\"grid\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1}\" y2=\"{2}\"/>"
        "<text x=\"{0:.1f}\" y=\"{3}\" text-anchor=\"middle\">{4}</text>",
        px(x), kTop, kHeight - kBottom, kHeight - kBottom + 16, tick_text(x));
  for (const double y : ticks_of(y_, 5))
    body_ += fmt::format(
        "<line class=\"grid\" x1=\"{1}\" x2=\"{2}\" y1=\"{0:.1f}\" y2=\"{0:.1f}\"/>"
        "<text x=\"{3}\" y=\"{4:.1f}\" text-anchor=\"end\">{5}</text>",
        py(y), kLeft, kWidth - kRight, kLeft - 6, py(y) + 4, tick_text(y));
  body_ += fmt::format("<text class=\"ink\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                       (kLeft + kWidth - kRight) / 2, kHeight - 8, text(x_.label));
  body_ += fmt::format(
      "<text class=\"ink\" transform=\"translate(12 {}) rotate(-90)\" "
      "text-anchor=\"middle\">{}</text>",
      (kTop + kHeight - kBottom) / 2, text(y_.label));
}

void Plot::scatter(const Points& points) {
  if (points.size() > kMostDots) return density(points);
  for (const auto& [x, y] : points)
    body_ +=
        fmt::format("<circle class=\"dot\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2\"/>", px(x), py(y));
}

void Plot::density(const Points& points) {
  std::array<std::array<int64_t, kColumns>, kRows> counts = {};
  int64_t most = 0;
  for (const auto& [x, y] : points) {
    int64_t& count = counts[static_cast<size_t>(cell_of(y_.scale.at(y), kRows))]
                           [static_cast<size_t>(cell_of(x_.scale.at(x), kColumns))];
    most = std::max(most, ++count);
  }
  std::array<std::string, kShades + 1> paths;  // of each shade one
  for (int row = 0; row < kRows; ++row)
    for (int column = 0; column < kColumns; ++column)
      if (const int64_t count = counts[static_cast<size_t>(row)][static_cast<size_t>(column)])
        paths[static_cast<size_t>(shade_of(count, most))] +=
            fmt::format("M{} {}h1v1h-1z", column, kRows - 1 - row);
  body_ += fmt::format("<g transform=\"translate({} {}) scale({:.4f} {:.4f})\">", kLeft, kTop,
                       (kWidth - kLeft - kRight) / kColumns, (kHeight - kTop - kBottom) / kRows);
  for (size_t shade = 1; shade < paths.size(); ++shade)
    if (!paths[shade].empty())
      body_ += fmt::format("<path class=\"s{}\" d=\"{}\"/>", shade, paths[shade]);
  body_ += "</g>";
  remark_ += fmt::format(
      "A density of {} points: a cell of the darkest shade holds {}, steps are "
      "logarithmic. ",
      points.size(), most);
}

void Plot::rings(const Points& points) {
  for (const auto& [x, y] : points)
    body_ +=
        fmt::format("<circle class=\"worst\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\"/>", px(x), py(y));
}

void Plot::line(const Points& points, std::string_view css_class) {
  body_ += fmt::format("<polyline class=\"{}\" points=\"", css_class);
  for (const auto& [x, y] : points) body_ += fmt::format("{:.1f},{:.1f} ", px(x), py(y));
  body_ += "\"/>";
}

void Plot::bar(double x0, double x1, double height, std::string_view css_class) {
  const double top = py(height), bottom = kHeight - kBottom;
  body_ += fmt::format(
      "<rect class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>",
      css_class, px(x0), top, std::max(0.5, px(x1) - px(x0) - 1), std::max(0.0, bottom - top));
}

void Plot::key(std::string_view css_class, std::string_view label) {
  key_ += fmt::format(
      "<li><svg viewBox=\"0 0 12 12\"><polyline class=\"{}\" points=\"0,6 12,6\"/></svg>{}</li>",
      css_class, text(label));
}

std::string Plot::finish(std::string_view explanation) const {
  std::string caption(explanation);
  if (!caption.empty()) caption += " ";
  caption += remark_;
  const std::string of_x = x_.scale.remark("values"), of_y = y_.scale.remark("values");
  if (of_x == of_y && !of_x.empty()) caption += fmt::format("Both axes {}. ", of_x);
  for (const auto& [axis, remark] : {std::pair(&x_, &of_x), std::pair(&y_, &of_y)})
    if (of_x != of_y && !remark->empty()) caption += fmt::format("{}: {}. ", axis->label, *remark);
  return fmt::format(
      "<figure class=\"fit\"><b>{0}</b><svg viewBox=\"0 0 {1} {2}\" role=\"img\" "
      "aria-label=\"{0}\">{3}</svg>{4}<figcaption>{5}</figcaption></figure>\n",
      text(title_), kWidth, kHeight, body_, key_.empty() ? "" : element("ul", "key", key_),
      text(caption));
}

std::string histogram(std::string title, std::string x_label, std::string_view noun,
                      const std::vector<double>& values) {
  const ValueScale scale = ValueScale::logarithmic(values);
  std::array<double, kBins> counts = {};
  for (const double value : values)
    if (!std::isnan(value)) ++counts[static_cast<size_t>(cell_of(scale.at(value), kBins))];
  const double highest = *std::max_element(counts.begin(), counts.end());
  Plot plot(std::move(title), {std::move(x_label), scale},
            {fmt::format("{}, log", noun), ValueScale::logarithmic({0.5, std::max(1.0, highest)})});
  for (size_t i = 0; i < kBins; ++i)
    if (counts[i] > 0)
      plot.bar(scale.value(static_cast<double>(i) / kBins),
               scale.value(static_cast<double>(i + 1) / kBins), counts[i]);
  return plot.finish("");
}

}  // namespace moelora::page
