#include "lib/diff/prediction.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <array>

#include "lib/base/nearest.h"
#include "lib/base/utf8.h"
#include "lib/diff/reports/metrics_json.h"
#include "lib/io/json_build.h"

namespace moelora {
namespace {

std::string number(double value) { return fmt::format("{:.3g}", value); }

std::string metrics_line(const Metrics& m) {
  return fmt::format("k2 {}, k3 {}, max {} nat over {} tokens", number(m.k2), number(m.k3),
                     number(m.max_abs), m.n);
}

std::string shares_table(const Prediction& server) {
  std::vector<std::vector<std::string>> rows{
      {"  without", "k2", "k3", "max", "deltas", "what the server does"}};
  for (const PredictedShare& share : server.shares)
    rows.push_back(
        {"  " + (share.rules.empty() ? "-" : fmt::format("{}", fmt::join(share.rules, ", "))),
         number(share.without.k2), number(share.without.k3), number(share.without.max_abs),
         std::to_string(share.deltas), printable(share.what)});
  return text_table(std::move(rows));
}

std::string notes_text(const Prediction& server) {
  std::string out;
  for (const std::string& note : server.notes) out += "  note: " + printable(note) + "\n";
  return out;
}

std::string server_text(const Prediction& server) {
  std::string out = "\n" + server.engine;
  if (!server.against_files)
    return out + ": " + printable(server.not_served) + "\n" + notes_text(server);
  const Comparison& c = *server.against_files;
  out += ": " + metrics_line(c.metrics) + "\n";
  for (const Statement& statement : c.statements)
    out += fmt::format("  {}: {}\n", statement.holds ? "holds" : "fails", statement.text);
  if (!server.shares.empty()) out += shares_table(server);
  return out + notes_text(server);
}

Json share_json(const PredictedShare& share) {
  return Json::object({{"rules", Json::strings(share.rules)},
                       {"what", share.what},
                       {"deltas", share.deltas},
                       {"without", metrics_json(share.without)}});
}

Json statement_json(const Statement& s) {
  return Json::object({{"id", s.id}, {"holds", s.holds}, {"text", s.text}});
}

Json server_json(const Prediction& server) {
  if (!server.against_files)
    return Json::object({{"engine", server.engine},
                         {"not_served", server.not_served},
                         {"notes", Json::strings(server.notes)}});
  const Comparison& c = *server.against_files;
  std::vector<Json> shares, statements;
  for (const PredictedShare& share : server.shares) shares.push_back(share_json(share));
  for (const Statement& s : c.statements) statements.push_back(statement_json(s));
  return Json::object({{"engine", server.engine},
                       {"metrics", metrics_json(c.metrics)},
                       {"verdict", std::string(verdict_name(c.verdict))},
                       {"statements", Json::array(std::move(statements))},
                       {"reasons", Json::array(std::move(shares))},
                       {"notes", Json::strings(server.notes)}});
}

}  // namespace

std::string prediction_text(const Predictions& predictions) {
  const FileScores& files = predictions.files;
  std::string out = fmt::format(
      "what each server makes of {}, against what its files mean\nbase {}; {} log-probabilities in "
      "{} precision, mean {:.4g}\n",
      printable(files.adapter), printable(files.base), files.scored(),
      precision_name(files.precision), files.mean());
  for (const Prediction& server : predictions.servers) out += server_text(server);
  return out;
}

std::string prediction_json(const Predictions& predictions) {
  const FileScores& files = predictions.files;
  std::vector<Json> servers;
  for (const Prediction& server : predictions.servers) servers.push_back(server_json(server));
  return Json::object({{"schema", "moelora.prediction/1"},
                       {"adapter", files.adapter},
                       {"base", files.base},
                       {"precision", std::string(precision_name(files.precision))},
                       {"temperature", files.temperature},
                       {"scored", json_count(files.scored())},
                       {"mean", files.mean()},
                       {"servers", Json::array(std::move(servers))},
                       {"notes", Json::strings(predictions.notes)}})
             .dump() +
         "\n";
}

std::string prediction_report(const Predictions& predictions, std::string_view format,
                              const PageOrigin& origin) {
  constexpr std::array<std::string_view, 3> kFormats = {"text", "json", "html"};
  if (format == "text") return prediction_text(predictions);
  if (format == "json") return prediction_json(predictions);
  if (format == "html") return prediction_html(predictions, origin);
  throw unknown_word(at_option(Option::format), "format", format, kFormats);
}

}  // namespace moelora
