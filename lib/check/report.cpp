#include "lib/check/report.h"

#include <algorithm>
#include <array>

namespace moelora {

namespace reports {
#define MOELORA_ENTRY(name) extern const ReportFormat name;
#include "reports.inc"
#undef MOELORA_ENTRY
}  // namespace reports

namespace {

constexpr std::array kAll = {
#define MOELORA_ENTRY(name) &reports::name,
#include "reports.inc"
#undef MOELORA_ENTRY
};

}  // namespace

std::span<const ReportFormat* const> all_report_formats() { return kAll; }

const ReportFormat* find_report_format(std::string_view id) {
  const auto it = std::find_if(kAll.begin(), kAll.end(),
                               [&](const ReportFormat* format) { return format->id == id; });
  return it == kAll.end() ? nullptr : *it;
}

bool fails(const Finding& finding, const ReportOptions& options) {
  return options.fail_on && finding.severity >= *options.fail_on;
}

bool fails(const Report& report) {
  return std::any_of(report.results.findings.begin(), report.results.findings.end(),
                     [&](const Finding& finding) { return fails(finding, report.options); });
}

}  // namespace moelora
