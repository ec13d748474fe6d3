#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lib/base/page/markup.h"
#include "lib/base/page/plot.h"
#include "lib/diff/comparison.h"
#include "lib/diff/reports/worst_table.h"

namespace moelora {
namespace {

using page::Plot;
using page::Points;
using page::ValueScale;

constexpr size_t kCurve = 500;  // points of the cumulative curve

double apart(const ScorePair& p) { return std::fabs(p.d()); }

std::vector<double> sizes_of(const Comparison& c) {
  std::vector<double> out;
  for (const ScorePair& p : c.alignment.pairs) out.push_back(apart(p));
  return out;
}

std::string scatter(const Comparison& c) {
  std::vector<double> values;
  Points points, worst;
  for (const ScorePair& p : c.alignment.pairs) {
    points.emplace_back(p.a, p.b);
    values.insert(values.end(), {p.a, p.b});
  }
  for (const ScorePair& p : c.worst) worst.emplace_back(p.a, p.b);
  const ValueScale scale = ValueScale::linear(values);
  Plot plot("B against A, per token", {"log-probability A", scale}, {"log-probability B", scale});
  plot.line({{scale.low(), scale.low()}, {scale.high(), scale.high()}}, "mark");
  plot.scatter(points);
  plot.rings(worst);
  return plot.finish("The same on the dashed line; the worst tokens are ringed.");
}

std::string along(const Comparison& c) {
  Points points, worst;
  std::vector<double> positions;
  const auto point = [](const ScorePair& p) {
    return std::pair(static_cast<double>(p.position), apart(p));
  };
  for (const ScorePair& p : c.alignment.pairs) {
    points.push_back(point(p));
    positions.push_back(points.back().first);
  }
  for (const ScorePair& p : c.worst) worst.push_back(point(p));
  Plot plot("|d| along the sequence", {"position", ValueScale::linear(positions), true},
            {"|logp B - logp A|, log", ValueScale::logarithmic(sizes_of(c))});
  plot.scatter(points);
  plot.rings(worst);
  return plot.finish("All sequences on each other; the worst tokens are ringed.");
}

std::string cumulative(const Comparison& c) {
  std::vector<double> sizes = sizes_of(c);
  std::sort(sizes.begin(), sizes.end());
  Points points;
  const auto add = [&](size_t i) {
    points.emplace_back(sizes[i],
                        100 * static_cast<double>(i + 1) / static_cast<double>(sizes.size()));
  };
  const size_t step = std::max<size_t>(1, sizes.size() / kCurve);
  for (size_t i = 0; i < sizes.size(); i += step) add(i);
  if (!sizes.empty()) add(sizes.size() - 1);
  Plot plot("Share of tokens within |d|", {"|d|, log", ValueScale::logarithmic(sizes)},
            {"% of tokens", ValueScale::linear({0, 100})});
  plot.line(points, "line");
  return plot.finish("");
}

std::string metrics_table(const Comparison& c) {
  page::Table table({"metric", "value"});
  table.row({"n", std::to_string(c.metrics.n)});
  for (const auto& [name, value] : c.metrics.named())
    table.row({page::text(name), fmt::format("{:.6g}", value)});
  return table.finish();
}

std::string verdict_part(const Comparison& c) {
  const char* css = c.verdict == Verdict::same        ? "verdict good"
                    : c.verdict == Verdict::different ? "verdict bad"
                                                      : "verdict soft";
  std::string items;
  for (const Statement& s : c.statements)
    items += page::item(s.id + ": " + s.text, s.holds ? "good" : "bad");
  for (const std::string& text : c.suspicions) items += page::item("suspicious: " + text, "bad");
  for (const std::string& note : c.notes) items += page::item("note: " + note, "soft");
  return page::paragraph(fmt::format("Verdict: {}", verdict_name(c.verdict)), css) +
         page::element("ul", "", items) + "\n";
}

// The side that the files take: B.
std::string files_part(const Scores& side, const FilesSide& files) {
  const std::string adapter =
      files.adapter.empty() ? " alone" : " with the adapter " + page::code(files.adapter);
  return fmt::format(
      "<p>B: the files of {}{}, computed in {} precision at temperature {:g} "
      "<span class=\"soft\">({})</span></p>\n",
      page::code(files.base), adapter, page::text(files.precision), files.temperature,
      page::text(side.format));
}

std::string side_part(char letter, const Scores& side) {
  const std::string name = side.path + (side.side.empty() ? "" : ": " + side.side);
  return fmt::format("<p>{}: {} <span class=\"soft\">({})</span></p>\n", letter, page::code(name),
                     page::text(side.format));
}

}  // namespace

std::string comparison_html(const Comparison& c, const PageOrigin& origin) {
  std::string out =
      side_part('A', c.a) + (c.files ? files_part(c.b, *c.files) : side_part('B', c.b));
  out += page::paragraph(
      fmt::format("{} positions compared; {} without a value, {} masked, {} not finite",
                  c.alignment.pairs.size(), c.alignment.unscored, c.alignment.masked,
                  c.alignment.not_finite),
      "soft");
  out += verdict_part(c);
  out += page::element("div", "charts",
                       scatter(c) + along(c) +
                           page::histogram("How large |d| is", "|d|, log", "tokens", sizes_of(c)) +
                           cumulative(c));
  out += worst_table(c, "logp A", "logp B") + page::heading("Metrics") + metrics_table(c);
  out += page::terms(
      {{"d", "log p(B) - log p(A) of a token, in nats: 0.01 is a probability 1 % higher in B"},
       {"mean_abs, median_abs, pNN_abs, max_abs", "of |d| over all tokens"},
       {"k1, k2, k3",
        "estimates of the KL divergence of A from B: means of -d, d^2/2, e^d - d - 1"},
       {"prob_mean_abs, prob_max_abs", "of |p(B) - p(A)|"},
       {"pearson", "correlation of the two sides' log-probabilities"},
       {"ppl_a, ppl_b, log_ppl_diff", "perplexity of each side, and the logarithm of their ratio"},
       {"ratio_*, ess, chi2_*, clip_*",
        "of the importance ratio e^d: its mean and ends, the effective sample size as a share of "
        "the tokens, chi-square divergences, the shares above 2 and below 0.5"}});
  return page::whole_page("Log-probabilities, token by token", origin, out);
}

}  // namespace moelora
