#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lib/check/ignore.h"
#include "lib/check/report_options.h"
#include "lib/check/run_rules.h"

namespace moelora {

// All that a report tells.
struct Report {
  const Deployment& deployment;
  const RuleResults& results;  // without what was waived
  std::span<const Waived> waived;
  ReportOptions options;
};

// Whether a finding is at or above options.fail_on.
bool fails(const Finding& finding, const ReportOptions& options);
bool fails(const Report& report);

// A form in which a report is printed. Each is one file in reports/ that defines one
// `const ReportFormat` in namespace reports; the folder is the registry. A format tells everything:
// findings, what was waived, skipped and assumed. It prints no byte of a file that could steer a
// terminal, a workflow or the markup around it.
struct ReportFormat {
  std::string_view id;                         // "sarif"
  std::string_view summary;                    // one line, for --help and REFERENCE.md
  std::string (*write)(const Report& report);  // ends with a newline
};

std::span<const ReportFormat* const> all_report_formats();    // by id
const ReportFormat* find_report_format(std::string_view id);  // null when unknown

}  // namespace moelora
