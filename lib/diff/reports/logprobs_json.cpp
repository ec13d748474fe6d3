#include <cmath>

#include "lib/diff/comparison.h"
#include "lib/diff/metrics.h"
#include "lib/io/json_build.h"

namespace moelora {
namespace {

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
    if (prompt) out[s].set("prompt", json_count(*prompt));
  }
  return Json::array(std::move(out));
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
  if (with_scores) out.set("scores", scores_json(c));
  return out.dump() + "\n";
}

}  // namespace moelora
