// An example of a report format: one row per finding, for a spreadsheet.

#include <fmt/format.h>

#include "lib/check/report_parts.h"

namespace moelora {
namespace {

// One line without control characters, in quotes; what a spreadsheet takes for a formula begins
// with an apostrophe.
std::string cell(std::string_view text) {
  std::string out = "\"";
  for (const char c : one_line(text)) {
    if (out.size() == 1 && std::string_view("=+-@").find(c) != std::string_view::npos) out += '\'';
    if (c == '"') out += '"';
    out += c;
  }
  return out + '"';
}

std::string row(std::string_view kind, std::string_view what, std::string_view engine,
                std::string_view adapter, std::string_view text) {
  return fmt::format("{},{},{},{},{}\n", cell(kind), cell(what), cell(engine), cell(adapter),
                     cell(text));
}

std::string write(const Report& report) {
  std::string out = "severity,rule,engine,adapter,finding\n";
  for (const Finding& f : report.results.findings)
    out += row(severity_name(f.severity), rule_title(f), f.engine, adapter_title(report, f),
               finding_line(f));
  for (const Waived& w : report.waived)
    out += row("ignored", rule_title(w.finding), w.finding.engine, adapter_title(report, w.finding),
               w.reason);
  for (const Remark& remark : remarks_and_served(report))
    out += row(remark.label, "", "", "", remark.text);
  return out;
}

}  // namespace

const ReportFormat reports::csv = {
    .id = "csv",
    .summary = "one row per finding, for a spreadsheet",
    .write = write,
};

}  // namespace moelora
