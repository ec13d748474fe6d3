#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>
#include <tuple>

#include "lib/base/page/bars.h"
#include "lib/base/page/heat_map.h"
#include "lib/base/page/markup.h"
#include "lib/base/utf8.h"
#include "lib/check/name_groups.h"
#include "lib/check/page/coverage.h"
#include "lib/check/page/verdicts.h"
#include "lib/check/report_parts.h"

namespace moelora {
namespace {

constexpr size_t kMostOfRule = 6, kMostServerLines = 8, kMostPictures = 8, kMostRemarks = 40;

const char* css_of(Severity severity) {
  return severity == Severity::error ? "bad" : severity == Severity::warning ? "warn" : "soft";
}

// ---- findings, by rule --------------------------------------------------------------------------

std::string first_lines(const std::string& text) {
  size_t end = 0, count = 0;
  while (end < text.size() && count < kMostServerLines) {
    end = std::min(text.find('\n', end), text.size() - 1) + 1;
    ++count;
  }
  const auto more = std::count(text.begin() + static_cast<std::ptrdiff_t>(end), text.end(), '\n');
  return end == text.size() ? text
                            : fmt::format("{}... and {} more", text.substr(0, end), more + 1);
}

std::string one_finding(const Report& report, const Finding& f) {
  std::string out = page::code(adapter_title(report, f));
  if (!f.engine.empty()) out += " " + page::element("span", "soft", page::text(f.engine));
  out += page::paragraph(finding_line(f, 3));
  if (!f.server_text.empty())
    out += "<p class=\"soft\">The server:</p>" +
           page::element("pre", "", page::lines(first_lines(f.server_text)));
  if (!f.fix.empty())
    out += "<p class=\"soft\">Fix:</p>" + page::element("pre", "", page::text(f.fix));
  return page::element("li", "", out) + "\n";
}

// How often, and where: "in 66 adapters, for sglang@0.5.23 and vllm@0.33".
std::string spread_of(const std::vector<const Finding*>& findings) {
  std::set<Section> where;
  std::set<std::string> engines;
  for (const Finding* f : findings) {
    where.insert(section_of(*f));
    if (!f->engine.empty()) engines.insert(f->engine);
  }
  std::string out = pluralized(findings.size(), "finding");
  if (where.size() > 1) out += fmt::format(" in {} places", where.size());
  if (!engines.empty()) out += fmt::format(", for {}", fmt::join(engines, ", "));
  return out;
}

std::string rule_card(const Report& report, const std::vector<const Finding*>& findings) {
  const Finding& first = *findings.front();
  std::string out = page::element(
      "h3", css_of(first.severity),
      page::text(fmt::format("{} {}", severity_name(first.severity), rule_title(first))));
  out += page::paragraph(spread_of(findings), "soft");
  out += page::paragraph(first.rule->what) + page::paragraph(first.rule->why, "soft");
  std::string items;
  for (size_t i = 0; i < std::min(findings.size(), kMostOfRule); ++i)
    items += one_finding(report, *findings[i]);
  if (findings.size() > kMostOfRule)
    items +=
        page::item(fmt::format("and {} more of this rule", findings.size() - kMostOfRule), "soft");
  return page::element("div", "card", out + page::element("ul", "", "\n" + items)) + "\n";
}

std::string findings_part(const Report& report) {
  if (report.results.findings.empty()) return "";
  using Key = std::tuple<int, std::string_view>;  // the most severe first, then by id
  std::map<Key, std::vector<const Finding*>> by_rule;
  for (const Finding& f : report.results.findings)
    by_rule[{-static_cast<int>(f.severity), f.rule->id}].push_back(&f);
  std::string out = page::heading("Findings");
  for (const auto& entry : by_rule) out += rule_card(report, entry.second);
  return out;
}

// ---- pictures -----------------------------------------------------------------------------------

std::string memory_part(const Report& report) {
  const auto runs = with_memory(report);
  if (runs.empty()) return "";
  std::string out;
  for (size_t i = 0; i < std::min(runs.size(), kMostPictures); ++i) {
    const MemoryPlan& plan = runs[i]->plan->memory;
    page::BarChart chart;
    chart.title = "Memory of " + runs[i]->choice.label();
    chart.explanation =
        fmt::format("One slot on one device, {}: {}.", plan.dtype, slots_text(plan));
    for (const MemoryRow& row : plan.rows)
      chart.bars.push_back({fmt::format("{} {}, {}", row.buffer, to_string(row.shape),
                                        pluralized(row.layers, "layer")),
                            static_cast<double>(row.bytes), size_text(row.bytes)});
    out += bar_figure(chart);
  }
  out = page::heading("Memory per rank") + page::element("div", "charts", out) + "\n";
  return out + page::and_more(runs.size(), kMostPictures, "servers");
}

std::string coverage_part(const Report& report) {
  size_t left_out = 0;
  const std::vector<Coverage> all = coverages(report, kMostPictures, &left_out);
  if (all.empty()) return "";
  std::string out = page::heading("What is adapted, and what the server makes of it");
  for (const Coverage& each : all) {
    page::Grid grid = page::narrowed(each.grid, page::kMostColumns);
    grid.title = each.title;
    out += grid_figure(grid);
  }
  return out + page::and_more(all.size() + left_out, all.size());
}

// ---- the page -----------------------------------------------------------------------------------

std::string waived_part(const Report& report) {
  std::vector<std::string> texts;
  for (const Waived& waived : report.waived) texts.push_back(waived_line(report, waived));
  return page::listed("Ignored", texts, kMostRemarks);
}

std::string remarks_part(const Report& report) {
  std::vector<std::string> texts;
  for (const Remark& remark : remarks_and_served(report))
    texts.push_back(fmt::format("{}: {}", remark.label, one_line(remark.text)));
  return page::listed("Notes", texts, kMostRemarks);
}

std::string meanings() {
  return page::terms(
      {{"error, warning, information",
        "a server refuses the adapter or computes something else; something is lost or doubtful; "
        "good to know"},
       {"served whole",
        "the server's own loader, followed step by step, uses every tensor as the "
        "adapter means it"},
       {"not checked", "nothing here knows the base model or the server's class of it"},
       {"slot", "the memory of one adapter on one device, whatever its own size"},
       {"dropped", "the server reads the tensor and does not use it, without a word"},
       {"a rule", "lora-validate --explain ID says what it checks, why, and shows an example"}});
}

std::string write(const Report& report) {
  std::string out = page::paragraph(fails(report) ? "Failed" : "Passed",
                                    fails(report) ? "verdict bad" : "verdict good");
  out += page::paragraph(summary_line(report));
  out += page::heading("Verdicts") + verdict_matrix(report) + findings_part(report) +
         coverage_part(report) + memory_part(report) + waived_part(report) + remarks_part(report) +
         meanings();
  return page::whole_page("What servers make of the adapters", report.options.origin, out);
}

}  // namespace

const ReportFormat reports::html = {
    .id = "html",
    .summary = "a page to look at: verdicts, findings, memory, what is adapted and what is dropped",
    .write = write,
};

}  // namespace moelora
