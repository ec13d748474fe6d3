#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lib/check/ignore.h"
#include "lib/check/report_options.h"
#include "lib/check/run_rules.h"

namespace moelora {

// All that a report says.
struct Report {
  std::span<const Deployment> deployments;  // one or more; findings say which is theirs
  const RuleResults& results;               // without what was waived
  std::span<const Waived> waived;
  ReportOptions options;
  // Of each deployment, where each holds one adapter that was judged alone and let go; else empty.
  std::span<const JudgedAlone> alone = {};
};

// Whether a finding is at or above options.fail_on, or says that nothing was judged.
bool fails(const Finding& finding, const ReportOptions& options);
bool fails(const Report& report);

// A form in which a report is printed. Each is one file in reports/ that defines one
// `const ReportFormat` in namespace reports; the folder is the registry. A format reports
// everything: findings, what was waived, skipped and assumed. It prints no byte of a file that
// could steer a terminal, a workflow or the markup around it.
struct ReportFormat {
  std::string_view id;                         // "sarif"
  std::string_view summary;                    // one line, for --help and REFERENCE.md
  std::string (*write)(const Report& report);  // ends with a newline
};

namespace reports {
#define MOELORA_ENTRY(name) extern const ReportFormat name;
#include "reports.inc"
#undef MOELORA_ENTRY
}  // namespace reports

std::span<const ReportFormat* const> all_report_formats();    // by id
const ReportFormat* find_report_format(std::string_view id);  // null when unknown

// What a rule says of itself. The example is not written down anywhere: it is its `breaks`, applied
// to its specimen and checked now.

// --explain ID: what, why, source, example, fix; prose wrapped at `width` columns (0: never).
std::string explain(const Rule& rule, size_t width = 0);

// The same without the example, for a scanner's help page.
std::string rule_page(const Rule& rule);
std::string rule_page_markdown(const Rule& rule);

// The first https:// address in Rule::source; "" when there is none.
std::string source_url(const Rule& rule);

// "sglang from 0.5.10 before 0.5.13", "any": for whom a rule is.
std::string rule_scope(const Rule& rule);

// --list-rules in "text", "markdown" (the table of REFERENCE.md) or "json" (moelora.rules/1).
std::string list_rules(std::string_view format);

}  // namespace moelora
