#include "lib/check/report_rows.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "lib/base/utf8.h"
#include "lib/check/name_groups.h"

namespace moelora {
namespace {

constexpr size_t kMostInFull = 20, kMostRemarks = 12, kLongestFinding = 120;

bool is_listed(const AdapterRow& row) { return row.counts.errors + row.counts.warnings > 0; }

}  // namespace

bool is_concise(const Report& report) {
  const ReportOptions& options = report.options;
  return options.concise || (!options.verbose && adapters_of(report).size() > kMostInFull);
}

std::vector<AdapterRow> adapter_rows(const Report& report) {
  std::vector<AdapterRow> out;
  for (const Section& section : sections(report)) {
    const auto findings = findings_of(report.results, section);
    AdapterRow& row = out.emplace_back(AdapterRow{section, count_findings(findings), nullptr});
    for (const Finding* finding : findings)
      if (row.first == nullptr || finding->severity > row.first->severity) row.first = finding;
  }
  return out;
}

std::vector<AdapterRow> listed_rows(const Report& report) {
  std::vector<AdapterRow> out = adapter_rows(report);
  if (out.size() > kMostInFull) std::erase_if(out, [](const auto& row) { return !is_listed(row); });
  return out;
}

std::string unlisted_line(const Report& report) {
  const std::vector<AdapterRow> rows = adapter_rows(report);
  if (rows.size() <= kMostInFull) return "";
  const auto count = [&](auto&& is_one) {
    return static_cast<size_t>(std::count_if(rows.begin(), rows.end(), is_one));
  };
  const size_t clean = count([](const AdapterRow& row) { return row.first == nullptr; });
  const size_t left = count([](const AdapterRow& row) { return !is_listed(row); });
  if (left == 0) return "";
  std::string out = left == rows.size() ? pluralized(left, "adapter") + ": "
                                        : fmt::format("{} more: ", pluralized(left, "adapter"));
  if (clean > 0) out += fmt::format("{} without findings", clean);
  if (left > clean)
    out += fmt::format("{}{} with information only", clean > 0 ? ", " : "", left - clean);
  return out;
}

std::vector<RuleRow> rule_rows(const Report& report) {
  using Key = std::tuple<int, const Rule*, std::string_view>;
  std::map<Key, std::pair<RuleRow, std::set<Section>>> by_rule;
  for (const Finding& finding : report.results.findings) {
    auto& [row, where] =
        by_rule[{static_cast<int>(finding.severity), finding.rule, finding.engine}];
    if (row.first == nullptr) row.first = &finding;
    where.insert(section_of(finding));
  }
  std::vector<RuleRow> out;
  for (auto& [key, entry] : by_rule) {
    entry.first.adapters = entry.second.size();
    out.push_back(entry.first);
  }
  std::sort(out.begin(), out.end(), [](const RuleRow& a, const RuleRow& b) {
    const auto place = [](const RuleRow& row) {
      return std::make_tuple(-static_cast<int>(row.first->severity),
                             -static_cast<int64_t>(row.adapters), row.first->rule->id,
                             std::string_view(row.first->engine));
    };
    return place(a) < place(b);
  });
  return out;
}

std::string in_adapters(const RuleRow& row) {
  return row.first->adapter ? pluralized(row.adapters, "adapter") : "the deployment";
}

std::string first_text(const Finding& finding) {
  return printable(
      fmt::format("{}{}: {}", finding.rule->id,
                  finding.engine.empty() ? "" : " for " + finding.engine, finding_line(finding)),
      kLongestFinding);
}

std::vector<std::string> served_lines(const Report& report) {
  std::vector<std::pair<std::string, size_t>> engines;  // in the order in which they were asked for
  for (const Served& served : report.results.served) {
    auto at = std::find_if(engines.begin(), engines.end(),
                           [&](const auto& entry) { return entry.first == served.engine; });
    if (at == engines.end()) at = engines.insert(at, {served.engine, 0});
    ++at->second;
  }
  std::vector<std::string> out;
  for (const auto& [engine, count] : engines)
    out.push_back(fmt::format("{} serves {} of {} whole", engine, count,
                              pluralized(adapters_of(report).size(), "adapter")));
  return out;
}

std::vector<Remark> few_remarks(const Report& report) {
  std::vector<Remark> out = remarks(report);
  if (out.size() <= kMostRemarks) return out;
  const size_t more = out.size() - kMostRemarks;
  out.resize(kMostRemarks);
  out.push_back({"note", fmt::format("{} more; -v and --format json have all", more)});
  return out;
}

}  // namespace moelora
