#pragma once

#include <string>

#include "lib/check/report.h"

namespace moelora {

// A made-up made of two adapters on one server, for the tests of reports: rules that exist
// nowhere, names out of files that want to steer what reads them.
struct MadeReport {
  Deployment deployment;
  RuleResults results;
  std::vector<Waived> waived;

  Finding& add(const Rule& rule, std::optional<size_t> adapter, std::string message);
  Report report(ReportOptions options = {}) const {
    return {{&deployment, 1}, results, waived, std::move(options)};
  }
  std::string written(std::string_view format, ReportOptions options = {}) const {
    return find_report_format(format)->write(report(std::move(options)));
  }
};

extern const Rule kLoneQ, kDeadPattern, kCoverage, kMixed;  // error, warning, information, error

// Two adapters "adapters/a" and "adapters/b", no findings; checked for sglang and peft.
MadeReport sound_report();
// Findings of each severity in a, one of the deployment, one waived in b, skipped rules, a note.
MadeReport broken_report();
// broken_report with names, texts and a path that hold markup, commands and bytes of no UTF-8.
MadeReport hostile_report();

}  // namespace moelora
