#include "lib/check/report_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <tuple>

#include "lib/base/utf8.h"
#include "lib/check/name_groups.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

void add(Counts& counts, const Finding& finding) {
  ++(finding.severity == Severity::error     ? counts.errors
     : finding.severity == Severity::warning ? counts.warnings
                                             : counts.information);
}

bool is_text_file(std::string_view name) { return name.ends_with(".json"); }

constexpr const char* kConfig = "adapter_config.json";

// The file of the adapter to point at.
std::string file_to_show(const Finding& finding, const Subject& adapter) {
  if (is_text_file(finding.file)) return finding.file;
  const bool config =
      std::find(adapter.listing.begin(), adapter.listing.end(), kConfig) != adapter.listing.end();
  return config || finding.file.empty() ? kConfig : finding.file;
}

// Code scanners want real paths: through no link.
std::string from_root(const ReportOptions& options, const fs::path& path) {
  std::error_code ignored;
  const fs::path whole = fs::weakly_canonical(options.working_folder / path, ignored);
  const fs::path relative = whole.lexically_relative(fs::weakly_canonical(options.root, ignored));
  const bool outside = relative.empty() || *relative.begin() == "..";
  return (outside ? whole : relative).generic_string();
}

// What was not found has no folder; its path is the one that was given.
fs::path folder_of(const Subject& adapter) {
  return adapter.listing.empty() ? adapter.given : adapter.folder;
}

}  // namespace

Counts count_findings(std::span<const Finding> findings) {
  Counts counts;
  for (const Finding& finding : findings) add(counts, finding);
  return counts;
}

Counts count_findings(std::span<const Finding* const> findings) {
  Counts counts;
  for (const Finding* finding : findings) add(counts, *finding);
  return counts;
}

std::string counts_text(const Counts& counts) {
  std::vector<std::string> parts;
  if (counts.errors > 0) parts.push_back(pluralized(counts.errors, "error"));
  if (counts.warnings > 0) parts.push_back(pluralized(counts.warnings, "warning"));
  if (counts.information > 0) parts.push_back(fmt::format("{} information", counts.information));
  return parts.empty() ? "no findings" : fmt::format("{}", fmt::join(parts, ", "));
}

std::string waived_line(const Report& report, const Waived& waived) {
  return fmt::format("ignored {} in {}: {} ({})", rule_title(waived.finding),
                     adapter_title(report.deployment, waived.finding.adapter),
                     one_line(waived.reason), one_line(waived.from));
}

std::string adapter_title(const Deployment& deployment, std::optional<size_t> adapter) {
  return adapter ? one_line(deployment.adapters[*adapter].given) : "the deployment";
}

std::vector<const Finding*> findings_of(const RuleResults& results, std::optional<size_t> adapter) {
  std::vector<const Finding*> out;
  for (const Finding& finding : results.findings)
    if (finding.adapter == adapter) out.push_back(&finding);
  return out;
}

std::vector<std::optional<size_t>> places(const Report& report) {
  std::vector<std::optional<size_t>> out;
  for (size_t i = 0; i < report.deployment.adapters.size(); ++i) out.emplace_back(i);
  if (!findings_of(report.results, std::nullopt).empty()) out.emplace_back(std::nullopt);
  return out;
}

std::vector<FindingGroup> grouped(std::span<const Finding> findings) {
  std::vector<FindingGroup> groups;
  std::map<std::tuple<const Rule*, std::string, std::optional<size_t>>, size_t> index;
  for (const Finding& finding : findings) {
    const auto [at, is_new] =
        index.try_emplace({finding.rule, finding.engine, finding.adapter}, groups.size());
    if (is_new) groups.push_back({{}, {}, finding.severity});
    FindingGroup& group = groups[at->second];
    group.findings.push_back(&finding);
    group.severity = std::max(group.severity, finding.severity);
    group.names.insert(group.names.end(), finding.names.begin(), finding.names.end());
  }
  for (FindingGroup& group : groups) {
    std::sort(group.names.begin(), group.names.end());
    group.names.erase(std::unique(group.names.begin(), group.names.end()), group.names.end());
  }
  return groups;
}

std::string finding_line(const FindingGroup& group) {
  const size_t more = group.findings.size() - 1;
  return finding_line(group.first()) +
         (more == 0 ? "" : fmt::format(" ({} more of this rule)", more));
}

std::string path_of(const Report& report, const Finding& finding, const std::string& file) {
  const auto& adapters = report.deployment.adapters;
  if (adapters.empty()) return file;
  const Subject& adapter = adapters[finding.adapter.value_or(0)];
  return from_root(report.options, folder_of(adapter) / file);
}

Spot spot_of(const Report& report, const Finding& finding) {
  const auto& adapters = report.deployment.adapters;
  if (adapters.empty()) return {kConfig};
  const std::string file = file_to_show(finding, adapters[finding.adapter.value_or(0)]);
  const bool known = finding.line > 0 && file == finding.file;
  return {path_of(report, finding, file), known ? finding.line : 1,
          known ? std::max(finding.column, 1) : 1};
}

std::vector<Remark> remarks(const RuleResults& results) {
  std::vector<Remark> out;
  for (const std::string& note : results.notes) out.push_back({"note", note});
  for (const Skipped& skipped : results.skipped)
    out.push_back({"not checked", skipped.what + ": " + skipped.why});
  return out;
}

std::vector<const EngineRun*> with_memory(const Deployment& deployment) {
  std::vector<const EngineRun*> out;
  for (const EngineRun& run : deployment.engines)
    if (run.plan && !run.plan->memory.rows.empty()) out.push_back(&run);
  return out;
}

std::string slots_text(const MemoryPlan& memory) {
  return fmt::format("slot {}, {} {}", size_text(memory.slot_bytes()),
                     pluralized(memory.slots, "slot"), size_text(memory.total_bytes()));
}

std::string engines_text(const Deployment& deployment) {
  std::vector<std::string> labels;
  for (const EngineRun& run : deployment.engines) labels.push_back(run.choice.label());
  return fmt::format("{}", fmt::join(labels, ", "));
}

std::string summary_line(const Report& report) {
  const std::string engines = engines_text(report.deployment);
  std::string out = fmt::format("{} in {}", counts_text(count_findings(report.results.findings)),
                                pluralized(report.deployment.adapters.size(), "adapter"));
  if (!report.waived.empty()) out += fmt::format(", {} ignored", report.waived.size());
  return out + (engines.empty() ? "; no engine named: only rules of no engine were run"
                                : "; checked for " + engines);
}

}  // namespace moelora
