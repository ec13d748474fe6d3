#include "lib/diff/comparison_report.h"

#include <fmt/format.h>

#include <cmath>

#include "lib/base/nearest.h"
#include "lib/base/utf8.h"
#include "lib/diff/comparison_html.h"
#include "lib/diff/metrics.h"
#include "lib/io/json.h"

namespace moelora {
namespace {

// ---- text --------------------------------------------------------------------------------------

constexpr size_t kSequences = 8;  // the worst, in the text

std::string number(double value) { return fmt::format("{:.6g}", value); }

std::string side_line(char letter, const Scores& side) {
  size_t positions = 0;
  for (const Sequence& sequence : side.sequences) positions += sequence.size();
  return fmt::format("{}  {}{} ({}, {} sequence{}, {} positions)\n", letter, printable(side.path),
                     side.side.empty() ? "" : ": " + side.side, side.format, side.sequences.size(),
                     side.sequences.size() == 1 ? "" : "s", positions);
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
  return text_table(rows);
}

std::string sequences_text(const Comparison& c) {
  if (c.by_sequence.size() < 2) return "";
  std::vector<std::vector<std::string>> rows{{"sequence", "n", "mean_abs", "max_abs", "k2"}};
  for (size_t i = 0; i < std::min(c.by_sequence.size(), kSequences); ++i) {
    const auto& [sequence, m] = c.by_sequence[i];
    rows.push_back({std::to_string(sequence), std::to_string(m.n), number(m.mean_abs),
                    number(m.max_abs), number(m.k2)});
  }
  std::string out = "\n" + text_table(rows);
  if (c.by_sequence.size() > kSequences)
    out += fmt::format("and {} sequences more\n", c.by_sequence.size() - kSequences);
  return out;
}

std::string worst_text(const Comparison& c) {
  std::vector<std::vector<std::string>> rows{{"worst", "sequence", "position", "token", "A", "B"}};
  for (const ScorePair& p : c.worst)
    rows.push_back({number(std::fabs(p.b - p.a)), std::to_string(p.sequence),
                    std::to_string(p.position), p.token < 0 ? "?" : std::to_string(p.token),
                    number(p.a), number(p.b)});
  return "\n" + text_table(rows);
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
    out += fmt::format("{}  {}: {}\n", s.holds ? "yes" : "NO ", s.id, s.text);
  out += fmt::format("verdict: {}", verdict_name(c.verdict));
  if (c.verdict == Verdict::not_judged) out += " (give --max METRIC=VALUE, --preset or --floor)";
  return out + "\n";
}

std::string as_text(const Comparison& c) {
  std::string out = side_line('A', c.a) + side_line('B', c.b);
  const Alignment& al = c.alignment;
  out += fmt::format("{} positions compared; {} without a value, {} masked, {} not finite\n",
                     al.pairs.size(), al.unscored, al.masked, al.not_finite);
  for (const std::string& text : c.suspicions) out += "suspicious: " + text + "\n";
  out += "\n" + metrics_table(c);
  if (c.top) out += top_text(*c.top);
  if (c.delta) out += delta_text(*c.delta);
  return out + sequences_text(c) + worst_text(c) + verdict_text(c);
}

// ---- JSON --------------------------------------------------------------------------------------

Json count(size_t value) { return Json(static_cast<int64_t>(value)); }

Json metrics_json(const Metrics& metrics) {
  Json::Members members{{"n", metrics.n}};
  for (const auto& [name, value] : metrics.named())
    members.emplace_back(name, std::isfinite(value) ? Json(value) : Json());
  return Json::object(std::move(members));
}

Json side_json(const Scores& side) {
  return Json::object({{"path", side.path},
                       {"format", side.format},
                       {"side", side.side},
                       {"sequences", count(side.sequences.size())}});
}

Json pair_json(const ScorePair& p) {
  return Json::object({{"sequence", count(p.sequence)},
                       {"position", count(p.position)},
                       {"token", p.token < 0 ? Json() : Json(p.token)},
                       {"a", p.a},
                       {"b", p.b}});
}

Json worst_json(const Comparison& c) {
  std::vector<Json> out;
  for (const ScorePair& p : c.worst) out.push_back(pair_json(p));
  return Json::array(std::move(out));
}

Json sequences_json(const Comparison& c) {
  std::vector<Json> out;
  for (const auto& [sequence, metrics] : c.by_sequence)
    out.push_back(
        Json::object({{"sequence", count(sequence)}, {"metrics", metrics_json(metrics)}}));
  return Json::array(std::move(out));
}

Json statements_json(const Comparison& c) {
  std::vector<Json> out;
  for (const Statement& s : c.statements)
    out.push_back(Json::object({{"id", s.id}, {"holds", s.holds}, {"text", s.text}}));
  return Json::array(std::move(out));
}

Json top_json(const TopMetrics& t) {
  return Json::object({{"n", t.n},
                       {"agreement", t.agreement},
                       {"overlap", t.overlap},
                       {"kl_ab", t.kl_ab},
                       {"kl_ba", t.kl_ba}});
}

Json delta_json(const DeltaMetrics& d) {
  return Json::object({{"n", d.n},
                       {"effect_a", d.effect_a},
                       {"effect_b", d.effect_b},
                       {"mean_abs", d.mean_abs},
                       {"p95_abs", d.p95_abs},
                       {"max_abs", d.max_abs},
                       {"mean_abs_pct", d.mean_abs_pct},
                       {"pearson", d.pearson ? Json(*d.pearson) : Json()}});
}

// Both sides of every compared position, so that a report can be read as a file of scores again.
Json scores_json(const Comparison& c) {
  std::vector<Json> out(c.a.sequences.size());
  std::vector<std::vector<Json>> tokens(out.size()), a(out.size()), b(out.size());
  for (size_t s = 0; s < out.size(); ++s) {
    const size_t length = c.a.sequences[s].size();
    a[s].resize(length);
    b[s].resize(length);
    const auto& ids =
        c.a.sequences[s].tokens.empty() ? c.b.sequences[s].tokens : c.a.sequences[s].tokens;
    if (ids.size() == length)
      for (const int64_t id : ids) tokens[s].emplace_back(id);
  }
  for (const ScorePair& p : c.alignment.pairs) {
    a[p.sequence][p.position] = Json(p.a);
    b[p.sequence][p.position] = Json(p.b);
  }
  for (size_t s = 0; s < out.size(); ++s) {
    out[s] = Json::object({{"tokens", Json::array(std::move(tokens[s]))},
                           {"a", Json::array(std::move(a[s]))},
                           {"b", Json::array(std::move(b[s]))}});
    const auto& prompt =
        c.a.sequences[s].prompt ? c.a.sequences[s].prompt : c.b.sequences[s].prompt;
    if (prompt) out[s].set("prompt", count(*prompt));
  }
  return Json::array(std::move(out));
}

std::string as_json(const Comparison& c, bool with_scores) {
  Json out =
      Json::object({{"schema", "moelora.logprobs/1"},
                    {"a", side_json(c.a)},
                    {"b", side_json(c.b)},
                    {"verdict", verdict_name(c.verdict)},
                    {"statements", statements_json(c)},
                    {"positions", Json::object({{"compared", count(c.alignment.pairs.size())},
                                                {"unscored", c.alignment.unscored},
                                                {"masked", c.alignment.masked},
                                                {"not_finite", c.alignment.not_finite}})},
                    {"metrics", metrics_json(c.metrics)}});
  if (c.prompt) out.set("prompt", metrics_json(*c.prompt));
  if (c.response) out.set("response", metrics_json(*c.response));
  if (c.top) out.set("top", top_json(*c.top));
  if (c.delta) out.set("delta", delta_json(*c.delta));
  if (c.floor) out.set("floor", *c.floor);
  out.set("by_sequence", sequences_json(c));
  out.set("worst", worst_json(c));
  out.set("suspicions", Json::strings(c.suspicions));
  out.set("notes", Json::strings(c.notes));
  if (with_scores) out.set("scores", scores_json(c));
  return out.dump() + "\n";
}

}  // namespace

std::string comparison_report(const Comparison& c, std::string_view format, bool with_scores) {
  if (format == "text") return as_text(c);
  if (format == "json") return as_json(c, with_scores);
  if (format == "html") return comparison_html(c);
  throw unknown_word(at_option(Option::format), "format", format, kComparisonFormats);
}

}  // namespace moelora
