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

// "a: TEXT", "b: TEXT" become "a and 1 more: TEXT", where a and b are adapters.
std::vector<Remark> without_repeats(const Report& report) {
  std::set<std::string_view> adapters;
  for (const Subject* adapter : adapters_of(report)) adapters.insert(adapter->given);
  std::vector<Remark> out;
  std::map<std::string, std::pair<size_t, std::string>> first;  // by text: where, and of whom
  std::map<size_t, size_t> more;
  for (Remark& remark : remarks(report)) {
    const size_t colon = remark.text.find(": ");
    const std::string who = remark.text.substr(0, colon);
    if (colon != std::string::npos && adapters.count(who) != 0) {
      const auto [at, is_new] = first.try_emplace(remark.text.substr(colon), out.size(), who);
      if (!is_new) {
        const size_t others = ++more[at->second.first];
        out[at->second.first].text =
            fmt::format("{} and {} more{}", at->second.second, others, at->first);
        continue;
      }
    }
    out.push_back(std::move(remark));
  }
  return out;
}

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
  const size_t all = adapter_rows(report).size(), listed = listed_rows(report).size();
  if (listed == all) return "";
  return fmt::format("{}{} without errors or warnings", all - listed,
                     listed == 0 ? " adapters" : " more");
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
  std::vector<Remark> out = without_repeats(report);
  if (out.size() <= kMostRemarks) return out;
  const size_t more = out.size() - kMostRemarks;
  out.resize(kMostRemarks);
  out.push_back({"note", fmt::format("{} more; -v and --format json have all", more)});
  return out;
}

}  // namespace moelora
