#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lib/base/page/bars.h"
#include "lib/base/page/markup.h"
#include "lib/base/page/plot.h"
#include "lib/base/utf8.h"
#include "lib/diff/prediction.h"
#include "lib/diff/reports/worst_table.h"

namespace moelora {
namespace {

constexpr size_t kLabel = 66;  // bytes that fit above a bar

struct Shown {
  std::string words;
  const char* css;
};

Shown verdict_of(const Prediction& server) {
  if (!server.against_files) return {"not served", "verdict bad"};
  const Metrics& m = server.against_files->metrics;
  const std::string measured =
      fmt::format("k2 {:.3g}, k3 {:.3g}, max {:.3g} nat", m.k2, m.k3, m.max_abs);
  switch (server.against_files->verdict) {
    case Verdict::same:
      return {"within the thresholds: " + measured, "verdict good"};
    case Verdict::different:
      return {"beyond the thresholds: " + measured, "verdict bad"};
    case Verdict::not_judged:
      break;
  }
  return {measured, "verdict soft"};
}

std::string rules_text(const PredictedShare& share) {
  return share.rules.empty() ? "-" : fmt::format("{}", fmt::join(share.rules, ", "));
}

// How much of k3 goes away when this reason does, in percent; below 0 where it becomes more.
double share_of(const Metrics& whole, const PredictedShare& share) {
  return whole.k3 > 0 ? 100 * (1 - share.without.k3 / whole.k3) : 0;
}

// Its first bar is the whole, which is what the others are shares of.
std::string shares_figure(const Prediction& server) {
  const Metrics& whole = server.against_files->metrics;
  page::BarChart chart{"Share of k3 by reason",
                       "What goes away when the server does this one thing as the adapter means "
                       "it. Effects of wrong deltas are not linear: shares need not add up.",
                       {{"all of it", 100, fmt::format("{:.3g}", whole.k3)}}};
  for (const PredictedShare& share : server.shares) {
    const double percent = share_of(whole, share);
    const std::string what = share.what.substr(0, share.what.find(" ("));  // the table has the rest
    if (std::isfinite(percent))
      chart.bars.push_back({printable(rules_text(share) + ": " + what, kLabel),
                            std::max(0.0, percent), fmt::format("{:.0f} %", percent)});
  }
  return page::bar_figure(chart);
}

std::string sizes_figure(const Comparison& c) {
  std::vector<double> sizes;
  for (const ScorePair& p : c.alignment.pairs) sizes.push_back(std::fabs(p.d()));
  return page::histogram("How large |d| is", "|d|, log", "tokens", sizes);
}

std::string reasons_table(const Prediction& server) {
  page::Table table({"rule", "deltas", "k2 without", "k3 without", "max without", "what it does"},
                    5);
  for (const PredictedShare& share : server.shares)
    table.row({page::code(rules_text(share)), std::to_string(share.deltas),
               page::number(share.without.k2), page::number(share.without.k3),
               page::number(share.without.max_abs), page::text(share.what)});
  return table.finish();
}

std::string notes_list(const std::vector<std::string>& notes) {
  std::string items;
  for (const std::string& note : notes) items += page::item("note: " + note, "soft");
  return items;
}

std::string server_part(const Prediction& server) {
  const Shown shown = verdict_of(server);
  std::string out = page::heading(server.engine) + page::paragraph(shown.words, shown.css);
  if (!server.against_files)
    return out + page::element("pre", "", page::lines(server.not_served)) + "\n";
  std::string items;
  for (const Statement& s : server.against_files->statements)
    items += page::item(s.id + ": " + s.text, s.holds ? "good" : "bad");
  out += page::element("ul", "", items + notes_list(server.notes)) + "\n";
  if (!server.shares.empty())
    out += page::element("div", "charts",
                         shares_figure(server) + sizes_figure(*server.against_files)) +
           reasons_table(server);
  return out + worst_table(*server.against_files, "logp files", "logp server");
}

std::string files_part(const FileScores& files) {
  return fmt::format("<p>adapter {} on base {}</p>\n", page::code(files.adapter),
                     page::code(files.base)) +
         page::paragraph(fmt::format("{} log-probabilities in {} precision at temperature {}, "
                                     "mean {:.4g}: what the files mean",
                                     files.scored(), precision_name(files.precision),
                                     files.temperature, files.mean()),
                         "soft");
}

}  // namespace

std::string prediction_html(const Predictions& predictions, const PageOrigin& origin) {
  std::string out = files_part(predictions.files);
  if (!predictions.notes.empty())
    out += page::element("ul", "", notes_list(predictions.notes)) + "\n";
  for (const Prediction& server : predictions.servers) out += server_part(server);
  out += page::terms({{"d", "log p(server) - log p(files) of a token, in nats"},
                      {"k2, k3", "estimates of the KL divergence: means of d^2/2 and e^d - d - 1"},
                      {"max", "the largest |d| of all tokens"},
                      {"k2, k3, max without",
                       "the same when the server does this one thing as the adapter "
                       "means it"},
                      {"rule", "lora-validate --explain RULE says more"}});
  return page::whole_page("What servers make of an adapter", origin, out);
}

}  // namespace moelora
