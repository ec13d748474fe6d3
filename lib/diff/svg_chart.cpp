#include "lib/diff/svg_chart.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lib/base/utf8.h"

namespace moelora {
namespace {

constexpr double kWidth = 460, kHeight = 300;
constexpr double kLeft = 62, kRight = 14, kTop = 30, kBottom = 44;

std::string tick_text(double value) { return fmt::format("{:.4g}", value == 0 ? 0.0 : value); }

}  // namespace

SvgChart::Range range_of(const std::vector<double>& values) {
  if (values.empty()) return {0, 1};
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const double margin =
      *high > *low ? (*high - *low) * 0.04 : std::max(1e-6, std::fabs(*low) * 0.1);
  return {*low - margin, *high + margin};
}

std::vector<double> ticks_of(SvgChart::Range range, int count) {
  const double rough = (range.high - range.low) / count;
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = power;
  for (const double factor : {1.0, 2.0, 5.0, 10.0})
    if (rough <= factor * power) {
      step = factor * power;
      break;
    }
  std::vector<double> out;
  const double first = std::ceil(range.low / step);
  for (int i = 0; i <= 2 * count && (first + i) * step <= range.high; ++i)
    out.push_back((first + i) * step);
  return out;
}

std::string html_escaped(std::string_view text) {
  std::string out;
  for (const char c : printable(text, 4096)) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

SvgChart::SvgChart(std::string_view title, std::string_view x_label, std::string_view y_label,
                   Range x, Range y)
    : title_(title), x_label_(x_label), y_label_(y_label), x_(x), y_(y) {
  draw_axes();
}

double SvgChart::px(double x) const {
  return kLeft + (x - x_.low) / (x_.high - x_.low) * (kWidth - kLeft - kRight);
}

double SvgChart::py(double y) const {
  return kHeight - kBottom - (y - y_.low) / (y_.high - y_.low) * (kHeight - kTop - kBottom);
}

void SvgChart::draw_axes() {
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
  body_ += fmt::format("<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                       (kLeft + kWidth - kRight) / 2, kHeight - 8, html_escaped(x_label_));
  body_ += fmt::format(
      "<text transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
      (kTop + kHeight - kBottom) / 2, html_escaped(y_label_));
}

void SvgChart::dots(const std::vector<std::pair<double, double>>& points,
                    std::string_view css_class) {
  for (const auto& [x, y] : points)
    body_ += fmt::format("<circle class=\"{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2\"/>", css_class,
                         px(x), py(y));
}

void SvgChart::line(const std::vector<std::pair<double, double>>& points,
                    std::string_view css_class) {
  body_ += fmt::format("<polyline class=\"{}\" points=\"", css_class);
  for (const auto& [x, y] : points) body_ += fmt::format("{:.1f},{:.1f} ", px(x), py(y));
  body_ += "\"/>";
}

void SvgChart::bar(double x0, double x1, double height) {
  const double top = py(height), bottom = py(y_.low);
  body_ += fmt::format(
      "<rect class=\"bar\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>", px(x0),
      top, std::max(0.5, px(x1) - px(x0) - 1), std::max(0.0, bottom - top));
}

std::string SvgChart::finish() const {
  return fmt::format(
      "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\"><text class=\"title\" x=\"{}\" "
      "y=\"18\">{}</text>{}</svg>\n",
      kWidth, kHeight, html_escaped(title_), kLeft, html_escaped(title_), body_);
}

}  // namespace moelora
