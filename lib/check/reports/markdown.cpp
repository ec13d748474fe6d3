#include <fmt/core.h>

#include "lib/base/utf8.h"
#include "lib/check/report_parts.h"
#include "lib/check/report_rows.h"

namespace moelora {
namespace {

std::string finding_cell(const Finding& f) {
  std::string cell = f.where.empty() ? "" : md_code(where_text(f)) + ": ";
  cell += md_text(one_line(f.message));
  if (!f.server_text.empty()) cell += "<br>server: " + md_code(one_line(f.server_text));
  return cell;
}

std::string adapter_section(const Report& report, const Section& at) {
  const auto findings = findings_of(report.results, at);
  std::string out = fmt::format("\n### {}\n\n", md_text(adapter_title(report, at)));
  for (const std::string& text : served_texts(report, at)) out += md_text(text) + "\n\n";
  if (findings.empty()) return out + "No findings.\n";
  out += "| severity | rule | engine | finding | fix |\n|---|---|---|---|---|\n";
  for (const Finding* f : findings)
    out += fmt::format("| {} | {} | {} | {} | {} |\n", severity_name(f->severity), rule_title(*f),
                       f->engine, finding_cell(*f), md_text(one_line(f->fix)));
  return out;
}

// A row an adapter, and a row a rule.
std::string tables(const Report& report) {
  std::string out;
  for (const AdapterRow& row : listed_rows(report))
    out += fmt::format("| {} | {} | {} | {} |\n", md_text(adapter_title(report, row.section)),
                       row.worst(), row.counts.all(),
                       row.first == nullptr ? "" : md_text(first_text(*row.first)));
  if (!out.empty()) out = "\n| adapter | worst | findings | first |\n|---|---|---:|---|\n" + out;
  if (const std::string more = unlisted_line(report); !more.empty()) out += "\n" + more + ".\n";
  for (const std::string& line : served_lines(report)) out += "\n" + md_text(line) + ".\n";
  std::string rules;
  for (const RuleRow& row : rule_rows(report))
    rules += fmt::format("| {} | {} | {} | {} | {} |\n", rule_title(*row.first),
                         severity_name(row.first->severity), row.first->engine, in_adapters(row),
                         md_text(adapter_title(report, *row.first)));
  if (rules.empty()) return out;
  return out + "\n| rule | severity | engine | in | first in |\n|---|---|---|---|---|\n" + rules;
}

std::string waived_section(const Report& report) {
  if (report.waived.empty()) return "";
  std::string out = "\n### Ignored\n\n| rule | adapter | reason | by |\n|---|---|---|---|\n";
  for (const Waived& w : report.waived)
    out += fmt::format("| {} | {} | {} | {} |\n", rule_title(w.finding),
                       md_text(adapter_title(report, w.finding)), md_text(one_line(w.reason)),
                       md_text(one_line(w.from)));
  return out;
}

std::string memory_section(const EngineRun& run) {
  const MemoryPlan& plan = run.plan->memory;
  std::string out = fmt::format("\n### Memory of {} on one device\n\n", run.choice.label());
  out += "| buffer | shape | layers | bytes |\n|---|---|---|---|\n";
  for (const MemoryRow& row : plan.rows)
    out += fmt::format("| {} | {} | {} | {} |\n", md_code(row.buffer), to_string(row.shape),
                       row.layers, row.bytes);
  return out + fmt::format("\nOne {}, {}.\n", slots_text(plan), plan.dtype);
}

std::string remarks_section(const std::vector<Remark>& remarks) {
  std::string out;
  for (const Remark& remark : remarks)
    out += fmt::format("- {}: {}\n", remark.label, md_text(one_line(remark.text)));
  return out.empty() ? "" : "\n" + out;
}

std::string write(const Report& report) {
  std::string out = fmt::format("## lora-validate: {}\n\n{}\n", fails(report) ? "failed" : "passed",
                                md_text(summary_line(report)));
  const bool concise = is_concise(report);
  if (concise)
    out += tables(report);
  else
    for (const Section& section : sections(report)) out += adapter_section(report, section);
  out += waived_section(report);
  if (report.options.verbose)
    for (const EngineRun* run : with_memory(report)) out += memory_section(*run);
  return out + remarks_section(concise ? few_remarks(report) : remarks(report));
}

}  // namespace

const ReportFormat reports::markdown = {
    .id = "markdown",
    .summary = "tables, for a pull request or a job's summary",
    .write = write,
};

}  // namespace moelora
