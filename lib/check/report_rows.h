#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "lib/check/report_parts.h"

namespace moelora {

// Many adapters at a glance: a row for each, and a row for each rule.

// Whether a report is a table of its adapters: ReportOptions::concise, or more than twenty of them
// and no `verbose`.
bool is_concise(const Report& report);

struct AdapterRow {
  Section section;
  Counts counts;
  const Finding* first = nullptr;  // of the most severe; null without any

  // "error", "none".
  std::string_view worst() const {
    return first == nullptr ? "none" : severity_name(first->severity);
  }
};
// In the order of sections().
std::vector<AdapterRow> adapter_rows(const Report& report);

// Those to be listed: all of twenty or fewer, else those with an error or a warning.
std::vector<AdapterRow> listed_rows(const Report& report);
// "930 more without errors or warnings"; "" where all are listed.
std::string unlisted_line(const Report& report);

// What one rule says for one engine, at one severity.
struct RuleRow {
  const Finding* first = nullptr;
  size_t adapters = 0;  // in how many, deployments counted as one each
};
// The most severe first, then those of most adapters.
std::vector<RuleRow> rule_rows(const Report& report);
std::string in_adapters(const RuleRow& row);  // "66 adapters"

// The first finding in few words: "SGL009 for sglang@0.5.23: q_proj and 47 more: ...".
std::string first_text(const Finding& finding);

// "sglang@0.5.23 serves 934 of 1000 adapters whole", a line an engine that serves any.
std::vector<std::string> served_lines(const Report& report);

// The first dozen of remarks(), and how many more there are. What is noted of several adapters is
// one.
std::vector<Remark> few_remarks(const Report& report);

}  // namespace moelora
