#include <fmt/core.h>

#include <cmath>

#include "lib/diff/comparison.h"
#include "lib/diff/reports/metrics_json.h"
#include "lib/io/json_build.h"

namespace moelora {
namespace {

Json side_json(const Scores& side) {
  return Json::object({{"path", side.path},
                       {"format", side.format},
                       {"side", side.side},
                       {"sequences", json_count(side.sequences.size())}});
}

Json pair_json(const ScorePair& p) {
  return Json::object({{"sequence", json_count(p.sequence)},
                       {"position", json_count(p.position)},
                       {"token", p.token < 0 ? Json() : Json(p.token)},
                       {"a", p.a},
                       {"b", p.b}});
}

Json sequence_json(const std::pair<size_t, Metrics>& entry) {
  return Json::object(
      {{"sequence", json_count(entry.first)}, {"metrics", metrics_json(entry.second)}});
}

Json statement_json(const Statement& s) {
  return Json::object({{"id", s.id}, {"holds", s.holds}, {"text", s.text}});
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
                       {"pearson", or_null(d.pearson)}});
}

// A list as Json::dump() writes it at this depth, without a value for each item.
template <class F>
void add_list(std::string_view name, size_t count, std::string& out, F&& value) {
  out += fmt::format("      \"{}\": [", name);
  for (size_t i = 0; i < count; ++i) {
    out += i == 0 ? "\n        " : ",\n        ";
    out += Json(value(i)).dump();
  }
  out += count == 0 ? "]" : "\n      ]";
}

// Both sides of every compared position, so that a report can be read as a file of scores again.
// `pair` is the first of the sequence and becomes the first of the next.
void add_sequence(const Comparison& c, size_t s, size_t& pair, std::string& out) {
  const Sequence &x = c.a.sequences[s], &y = c.b.sequences[s];
  const auto& ids = x.tokens.empty() ? y.tokens : x.tokens;
  const auto& pairs = c.alignment.pairs;
  const auto side = [&](double ScorePair::*of) {
    return [&pairs, s, of, at = pair](size_t position) mutable {
      const bool is_here =
          at < pairs.size() && pairs[at].sequence == s && pairs[at].position == position;
      return is_here ? Json(pairs[at++].*of) : Json();
    };
  };
  out += "    {\n";
  add_list("tokens", ids.size() == x.size() ? ids.size() : 0, out,
           [&](size_t i) { return ids[i]; });
  out += ",\n";
  add_list("a", x.size(), out, side(&ScorePair::a));
  out += ",\n";
  add_list("b", x.size(), out, side(&ScorePair::b));
  if (const auto& prompt = x.prompt ? x.prompt : y.prompt)
    out += fmt::format(",\n      \"prompt\": {}", *prompt);
  out += "\n    }";
  while (pair < pairs.size() && pairs[pair].sequence == s) ++pair;
}

// The member "scores" of a report, behind its others.
void add_scores(const Comparison& c, std::string& report) {
  constexpr size_t kBytesOfPosition = 80;  // a token and two values, each on its line
  report.resize(report.rfind("\n}"));
  report.reserve(report.size() + c.alignment.pairs.size() * kBytesOfPosition);
  report += ",\n  \"scores\": [";
  size_t pair = 0;
  for (size_t s = 0; s < c.a.sequences.size(); ++s) {
    report += s == 0 ? "\n" : ",\n";
    add_sequence(c, s, pair, report);
  }
  report += c.a.sequences.empty() ? "]\n}" : "\n  ]\n}";
}

}  // namespace

std::string comparison_json(const Comparison& c, bool with_scores) {
  Json out =
      Json::object({{"schema", "moelora.logprobs/1"},
                    {"a", side_json(c.a)},
                    {"b", side_json(c.b)},
                    {"verdict", verdict_name(c.verdict)},
                    {"statements", json_list(c.statements, statement_json)},
                    {"positions", Json::object({{"compared", json_count(c.alignment.pairs.size())},
                                                {"unscored", c.alignment.unscored},
                                                {"masked", c.alignment.masked},
                                                {"not_finite", c.alignment.not_finite}})},
                    {"metrics", metrics_json(c.metrics)}});
  if (c.prompt) out.set("prompt", metrics_json(*c.prompt));
  if (c.response) out.set("response", metrics_json(*c.response));
  if (c.top) out.set("top", top_json(*c.top));
  if (c.delta) out.set("delta", delta_json(*c.delta));
  if (c.floor) out.set("floor", *c.floor);
  out.set("by_sequence", json_list(c.by_sequence, sequence_json));
  out.set("worst", json_list(c.worst, pair_json));
  out.set("suspicions", Json::strings(c.suspicions));
  out.set("notes", Json::strings(c.notes));
  std::string report = out.dump();
  if (with_scores) add_scores(c, report);
  report += '\n';
  return report;
}

}  // namespace moelora
