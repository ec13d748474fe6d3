// Annotations of a GitHub Actions job. A step may have 10 of each kind, what is more is dropped
// silently: the last says how many follow as plain lines of the log.

#include <fmt/core.h>

#include <array>

#include "lib/base/utf8.h"
#include "lib/check/report_parts.h"

namespace moelora {
namespace {

constexpr size_t kMostOfAKind = 10;

std::string escaped(std::string_view text, bool property) {
  std::string out;
  for (const char c : text) {
    const bool escape = c == '%' || c == '\r' || c == '\n' || (property && (c == ':' || c == ','));
    out += escape ? fmt::format("%{:02X}", static_cast<unsigned char>(c)) : std::string(1, c);
  }
  return out;
}

std::string log_line(const std::string& text) { return without_commands(text) + "\n"; }

const char* kind(Severity severity) {
  return severity == Severity::error     ? "error"
         : severity == Severity::warning ? "warning"
                                         : "notice";
}

std::string title(const FindingGroup& group) {
  const Finding& f = group.first();
  return rule_title(f) + (f.engine.empty() ? "" : fmt::format(" ({})", f.engine));
}

std::string body(const FindingGroup& group) {
  const Finding& f = group.first();
  std::string out = finding_line(group);
  if (!f.server_text.empty()) out += "\nserver: " + printed_lines(f.server_text);
  if (!f.fix.empty()) out += "\nfix: " + one_line(f.fix);
  return without_commands(out);
}

std::string annotation(const Report& report, const FindingGroup& group) {
  const Spot spot = spot_of(report, group.first());
  return fmt::format("::{} file={},line={},endLine={},col={},title={}::{}\n", kind(group.severity),
                     escaped(one_line(spot.path), true), spot.line, spot.line, spot.column,
                     escaped(title(group), true), escaped(body(group), false));
}

std::string plain(const Report& report, const FindingGroup& group) {
  return log_line(fmt::format("{} {} {}: {}", severity_name(group.severity), title(group),
                              adapter_title(report, group.first()), finding_line(group)));
}

// How many of so many findings are annotated; with more than a step may have, the last annotation
// says how many are not. Information is for the log: nobody has to act on it.
size_t annotated(size_t findings, Severity severity, bool verbose) {
  if (severity == Severity::information && !verbose) return 0;
  return findings <= kMostOfAKind ? findings : kMostOfAKind - 1;
}

// The annotations of one severity, and the rest as plain lines.
std::string of_severity(const Report& report, const std::vector<FindingGroup>& groups,
                        Severity severity) {
  std::vector<const FindingGroup*> mine;
  for (const FindingGroup& group : groups)
    if (group.severity == severity) mine.push_back(&group);
  const size_t count = annotated(mine.size(), severity, report.options.verbose);
  std::string out;
  for (size_t i = 0; i < count; ++i) out += annotation(report, *mine[i]);
  if (count > 0 && count < mine.size())
    out += fmt::format("::{} title=lora-validate::{} more follow in this step's log\n",
                       kind(severity), mine.size() - count);
  for (size_t i = count; i < mine.size(); ++i) out += plain(report, *mine[i]);
  return out;
}

std::string write(const Report& report) {
  const std::vector<FindingGroup> groups = grouped(report.results.findings);
  std::string out;
  for (const Severity severity : {Severity::error, Severity::warning, Severity::information})
    out += of_severity(report, groups, severity);
  for (const Waived& w : report.waived) out += log_line(waived_line(report, w));
  for (const Remark& remark : remarks_and_served(report))
    out += log_line(fmt::format("{}: {}", remark.label, one_line(remark.text)));
  return out + log_line(summary_line(report));
}

}  // namespace

const ReportFormat reports::github = {
    .id = "github",
    .summary = "annotations of a GitHub Actions job, and its summary",
    .write = write,
};

}  // namespace moelora
