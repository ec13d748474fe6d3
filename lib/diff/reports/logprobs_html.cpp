#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "lib/base/utf8.h"
#include "lib/diff/comparison.h"

namespace moelora {
namespace {

std::string escaped(std::string_view text) { return xml_escaped(printable(text, 4096)); }

// ---- a chart -----------------------------------------------------------------------------------

constexpr double kWidth = 460, kHeight = 300;
constexpr double kLeft = 62, kRight = 14, kTop = 30, kBottom = 44;

using Points = std::vector<std::pair<double, double>>;

struct Range {
  double low, high;
};

std::string tick_text(double value) { return fmt::format("{:.4g}", value == 0 ? 0.0 : value); }

// The range that holds all values, a little wider; of equal values one around them.
Range range_of(const std::vector<double>& values) {
  if (values.empty()) return {0, 1};
  const auto [low, high] = std::minmax_element(values.begin(), values.end());
  const double margin =
      *high > *low ? (*high - *low) * 0.04 : std::max(1e-6, std::fabs(*low) * 0.1);
  return {*low - margin, *high + margin};
}

// Round numbers in a range, about `count` of them: 1, 2 or 5 times a power of ten apart.
std::vector<double> ticks_of(Range range, int count) {
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

// A small chart as inline SVG: axes with round ticks, drawn in data coordinates. Colors are CSS
// classes of the page (axis, grid, dot, line, bar, mark), so that dark and light are the page's.
class SvgChart {
 public:
  SvgChart(std::string_view title, std::string_view x_label, std::string_view y_label, Range x,
           Range y)
      : title_(title), x_(x), y_(y) {
    draw_axes(x_label, y_label);
  }

  void dots(const Points& points) {
    for (const auto& [x, y] : points)
      body_ +=
          fmt::format("<circle class=\"dot\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"2\"/>", px(x), py(y));
  }

  void line(const Points& points, std::string_view css_class) {
    body_ += fmt::format("<polyline class=\"{}\" points=\"", css_class);
    for (const auto& [x, y] : points) body_ += fmt::format("{:.1f},{:.1f} ", px(x), py(y));
    body_ += "\"/>";
  }

  void bar(double x0, double x1, double height) {
    const double top = py(height), bottom = py(y_.low);
    body_ += fmt::format(
        "<rect class=\"bar\" x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\"/>",
        px(x0), top, std::max(0.5, px(x1) - px(x0) - 1), std::max(0.0, bottom - top));
  }

  std::string finish() const {
    return fmt::format(
        "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\"><text class=\"title\" x=\"{}\" "
        "y=\"18\">{}</text>{}</svg>\n",
        kWidth, kHeight, escaped(title_), kLeft, escaped(title_), body_);
  }

 private:
  double px(double x) const {
    return kLeft + (x - x_.low) / (x_.high - x_.low) * (kWidth - kLeft - kRight);
  }

  double py(double y) const {
    return kHeight - kBottom - (y - y_.low) / (y_.high - y_.low) * (kHeight - kTop - kBottom);
  }

  void draw_axes(std::string_view x_label, std::string_view y_label) {
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
                         (kLeft + kWidth - kRight) / 2, kHeight - 8, escaped(x_label));
    body_ += fmt::format(
        "<text transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>",
        (kTop + kHeight - kBottom) / 2, escaped(y_label));
  }

  std::string title_, body_;
  Range x_, y_;
};

// ---- the page ----------------------------------------------------------------------------------

constexpr size_t kMostDots = 4000;  // more would only blacken the chart and swell the page
constexpr int kBins = 30;

constexpr std::string_view kStyle = R"css(
:root { color-scheme: light dark; --ink: #1b1f24; --soft: #667; --paper: #fff; --grid: #e4e7eb;
        --dot: #2458b3; --mark: #c2410c; --bar: #7aa2dd; --good: #1a7f37; --bad: #b42318; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e8eb; --soft: #9aa4b2; --paper: #14171b; --grid: #2a2f36; --dot: #7fb0ff;
          --mark: #ff9a5c; --bar: #3f6aa8; --good: #57c774; --bad: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1000px; padding: 24px; background: var(--paper); color: var(--ink);
       font: 15px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h2 { font-size: 17px; margin: 28px 0 8px; }
p, ul { margin: 4px 0; } code { font-family: ui-monospace, monospace; overflow-wrap: anywhere; }
.soft { color: var(--soft); } .good { color: var(--good); } .bad { color: var(--bad); }
.verdict { font-size: 18px; font-weight: 600; margin: 12px 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 420px), 1fr)); gap: 16px; }
svg { width: 100%; height: auto; } svg text { fill: var(--soft); font-size: 11px; }
svg .title { fill: var(--ink); font-size: 13px; font-weight: 600; }
.grid { stroke: var(--grid); } .dot { fill: var(--dot); fill-opacity: .55; }
.line { fill: none; stroke: var(--dot); stroke-width: 1.5; } .bar { fill: var(--bar); }
.mark { fill: none; stroke: var(--mark); stroke-width: 1.2; stroke-dasharray: 4 3; }
.table { overflow-x: auto; } table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
td, th { padding: 3px 12px 3px 0; text-align: right; border-bottom: 1px solid var(--grid); }
td:first-child, th:first-child { text-align: left; }
)css";

double apart(const ScorePair& p) { return std::fabs(p.d()); }

// All pairs, or evenly spread ones together with the worst.
std::vector<ScorePair> drawn(const Comparison& c) {
  const auto& all = c.alignment.pairs;
  if (all.size() <= kMostDots) return all;
  std::vector<ScorePair> out;
  const size_t step = (all.size() + kMostDots - 1) / kMostDots;
  for (size_t i = 0; i < all.size(); i += step) out.push_back(all[i]);
  out.insert(out.end(), c.worst.begin(), c.worst.end());
  return out;
}

std::string scatter(const Comparison& c) {
  std::vector<double> values;
  Points points;
  for (const ScorePair& p : drawn(c)) {
    points.emplace_back(p.a, p.b);
    values.insert(values.end(), {p.a, p.b});
  }
  const Range range = range_of(values);
  SvgChart chart("B against A, per token", "log-probability A", "log-probability B", range, range);
  chart.line({{range.low, range.low}, {range.high, range.high}}, "mark");
  chart.dots(points);
  return chart.finish();
}

std::string along(const Comparison& c) {
  Points points;
  std::vector<double> sizes{0}, positions{0};
  for (const ScorePair& p : drawn(c)) {
    points.emplace_back(static_cast<double>(p.position), apart(p));
    positions.push_back(points.back().first);
    sizes.push_back(points.back().second);
  }
  SvgChart chart("|d| along the sequence", "position", "|logp B - logp A|", range_of(positions),
                 range_of(sizes));
  chart.dots(points);
  return chart.finish();
}

std::string histogram(const Comparison& c) {
  const double most = std::max(c.metrics.max_abs, 1e-12);
  std::vector<double> counts(kBins);
  for (const ScorePair& p : c.alignment.pairs)
    ++counts[static_cast<size_t>(std::min(kBins - 1.0, std::floor(apart(p) / most * kBins)))];
  const double highest = *std::max_element(counts.begin(), counts.end());
  SvgChart chart("How large |d| is", "|d|", "tokens", {0, most}, {0, highest * 1.05});
  for (int i = 0; i < kBins; ++i)
    chart.bar(most * i / kBins, most * (i + 1) / kBins, counts[static_cast<size_t>(i)]);
  return chart.finish();
}

std::string cumulative(const Comparison& c) {
  std::vector<double> sizes;
  for (const ScorePair& p : c.alignment.pairs) sizes.push_back(apart(p));
  std::sort(sizes.begin(), sizes.end());
  Points points{{0, 0}};
  const size_t step = std::max<size_t>(1, sizes.size() / 500);
  const auto add = [&](size_t i) {
    points.emplace_back(sizes[i],
                        100 * static_cast<double>(i + 1) / static_cast<double>(sizes.size()));
  };
  for (size_t i = 0; i < sizes.size(); i += step) add(i);
  add(sizes.size() - 1);
  SvgChart chart("Share of tokens within |d|", "|d|", "% of tokens",
                 {0, std::max(c.metrics.max_abs, 1e-12)}, {0, 102});
  chart.line(points, "line");
  return chart.finish();
}

std::string row(std::initializer_list<std::string> cells, std::string_view tag = "td") {
  std::string out = "<tr>";
  for (const std::string& cell : cells) out += fmt::format("<{0}>{1}</{0}>", tag, cell);
  return out + "</tr>\n";
}

std::string number(double value) { return fmt::format("{:.6g}", value); }

std::string metrics_table(const Comparison& c) {
  std::string out = "<div class=\"table\"><table>\n" + row({"metric", "value"}, "th") +
                    row({"n", std::to_string(c.metrics.n)});
  for (const auto& [name, value] : c.metrics.named()) out += row({name, number(value)});
  return out + "</table></div>\n";
}

// The text of a token, where a side has it.
std::string token_text(const Comparison& c, const ScorePair& p) {
  for (const Scores* side : {&c.a, &c.b}) {
    const auto& texts = side->sequences[p.sequence].texts;
    if (p.position < texts.size()) return escaped(texts[p.position]);
  }
  return "";
}

std::string worst_table(const Comparison& c) {
  std::string out = "<div class=\"table\"><table>\n" +
                    row({"|d|", "sequence", "position", "token", "text", "logp A", "logp B"}, "th");
  for (const ScorePair& p : c.worst)
    out += row({number(apart(p)), std::to_string(p.sequence), std::to_string(p.position),
                p.token < 0 ? "?" : std::to_string(p.token), token_text(c, p), number(p.a),
                number(p.b)});
  return out + "</table></div>\n";
}

std::string verdict_part(const Comparison& c) {
  const char* css = c.verdict == Verdict::same        ? "good"
                    : c.verdict == Verdict::different ? "bad"
                                                      : "soft";
  std::string out =
      fmt::format("<p class=\"verdict {}\">Verdict: {}</p>\n<ul>\n", css, verdict_name(c.verdict));
  for (const Statement& s : c.statements)
    out += fmt::format("<li class=\"{}\">{}: {}</li>\n", s.holds ? "good" : "bad", s.id,
                       escaped(s.text));
  for (const std::string& text : c.suspicions)
    out += fmt::format("<li class=\"bad\">suspicious: {}</li>\n", escaped(text));
  return out + "</ul>\n";
}

std::string side_part(char letter, const Scores& side) {
  return fmt::format("<p>{}: <code>{}{}</code> <span class=\"soft\">({})</span></p>\n", letter,
                     escaped(side.path), side.side.empty() ? "" : ": " + escaped(side.side),
                     side.format);
}

}  // namespace

std::string comparison_html(const Comparison& c) {
  std::string out =
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<title>lora-diff: log-probabilities</title>\n<style>" +
      std::string(kStyle) +
      "</style>\n</head>\n<body>\n<h1>Log-probabilities, token by token</h1>\n";
  out += side_part('A', c.a) + side_part('B', c.b);
  out += fmt::format(
      "<p class=\"soft\">{} positions compared; {} without a value, {} masked, {} not finite</p>\n",
      c.alignment.pairs.size(), c.alignment.unscored, c.alignment.masked, c.alignment.not_finite);
  out += verdict_part(c) + "<div class=\"charts\">\n" + scatter(c) + along(c) + histogram(c) +
         cumulative(c) + "</div>\n<h2>Worst tokens</h2>\n" + worst_table(c) +
         "<h2>Metrics</h2>\n<p class=\"soft\">d = log p(B) - log p(A) per token, in nats</p>\n" +
         metrics_table(c) + "</body>\n</html>\n";
  return out;
}

}  // namespace moelora
