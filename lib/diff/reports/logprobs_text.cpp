#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "lib/base/utf8.h"
#include "lib/diff/comparison.h"
#include "lib/diff/metrics.h"

namespace moelora {
namespace {

constexpr size_t kSequences = 8;  // the worst, in the text

std::string number(double value) { return fmt::format("{:.6g}", value); }

std::string side_line(char letter, const Scores& side) {
  size_t positions = 0;
  for (const Sequence& sequence : side.sequences) positions += sequence.size();
  return fmt::format("{}  {}{} ({}, {} sequence{}, {} positions)\n", letter, printable(side.path),
                     side.side.empty() ? "" : ": " + printable(side.side), side.format,
                     side.sequences.size(), side.sequences.size() == 1 ? "" : "s", positions);
}

std::string metrics_table(const Comparison& c) {
  std::vector<std::vector<std::string>> rows{{"metric", "all"}};
  const auto add_column = [&](const std::string& heading, const std::optional<Metrics>& metrics) {
    if (!metrics) return;
    rows[0].push_back(heading);
    rows[1].push_back(std::to_string(metrics->n));
    for (size_t i = 2; i < rows.size(); ++i)
      for (const auto& [name, value] : metrics->named())
        if (name == rows[i][0]) rows[i].push_back(number(value));
  };
  rows.push_back({"n", std::to_string(c.metrics.n)});
  for (const auto& [name, value] : c.metrics.named()) rows.push_back({name, number(value)});
  add_column("prompt", c.prompt);
  add_column("response", c.response);
  return text_table(std::move(rows));
}

std::string sequences_text(const Comparison& c) {
  if (c.by_sequence.size() < 2) return "";
  std::vector<std::vector<std::string>> rows{{"sequence", "n", "mean_abs", "max_abs", "k2"}};
  for (size_t i = 0; i < std::min(c.by_sequence.size(), kSequences); ++i) {
    const auto& [sequence, m] = c.by_sequence[i];
    rows.push_back({std::to_string(sequence), std::to_string(m.n), number(m.mean_abs),
                    number(m.max_abs), number(m.k2)});
  }
  std::string out = "\n" + text_table(std::move(rows));
  if (c.by_sequence.size() > kSequences)
    out += fmt::format("and {} sequences more\n", c.by_sequence.size() - kSequences);
  return out;
}

std::string worst_text(const Comparison& c) {
  std::vector<std::vector<std::string>> rows{{"worst", "sequence", "position", "token", "A", "B"}};
  for (const ScorePair& p : c.worst)
    rows.push_back({number(std::fabs(p.d())), std::to_string(p.sequence),
                    std::to_string(p.position), p.token < 0 ? "?" : std::to_string(p.token),
                    number(p.a), number(p.b)});
  return "\n" + text_table(std::move(rows));
}

std::string top_text(const TopMetrics& top) {
  return fmt::format(
      "\ntop tokens ({} positions): best token agrees {:.1f} %, overlap {:.1f} %, KL(A||B) {:.4g}, "
      "KL(B||A) {:.4g}\n",
      top.n, 100 * top.agreement, 100 * top.overlap, top.kl_ab, top.kl_ba);
}

std::string delta_text(const DeltaMetrics& d) {
  return fmt::format(
      "\nadapter effect: mean |e| {} on A, {} on B; B's against A's: mean {}, p95 {}, max {} "
      "({:.3g} % of the effect{})\n",
      number(d.effect_a), number(d.effect_b), number(d.mean_abs), number(d.p95_abs),
      number(d.max_abs), d.mean_abs_pct,
      d.pearson ? fmt::format(", correlation {:.4f}", *d.pearson) : "");
}

std::string verdict_text(const Comparison& c) {
  std::string out = "\n";
  for (const Statement& s : c.statements)
    out +=
        fmt::format("{}  {}: {}\n", s.holds ? "yes" : "NO ", s.id, printable(s.text, kLongestLine));
  out += fmt::format("verdict: {}", verdict_name(c.verdict));
  if (c.verdict == Verdict::not_judged)
    out += " (give --max METRIC=VALUE, --preset or --floor; or --report)";
  return out + "\n";
}

}  // namespace

std::string comparison_text(const Comparison& c) {
  std::string out = side_line('A', c.a) + side_line('B', c.b);
  const Alignment& al = c.alignment;
  out += fmt::format("{} positions compared; {} without a value, {} masked, {} not finite\n",
                     al.pairs.size(), al.unscored, al.masked, al.not_finite);
  for (const std::string& text : c.suspicions)
    out += "suspicious: " + printable(text, kLongestLine) + "\n";
  out += "\n" + metrics_table(c);
  if (c.top) out += top_text(*c.top);
  if (c.delta) out += delta_text(*c.delta);
  return out + sequences_text(c) + worst_text(c) + verdict_text(c);
}

}  // namespace moelora
