#include "lib/check/report_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <tuple>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/check/name_groups.h"
#include "lib/io/file.h"

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

// Without links. Throws MachineError: another name is another alert to a code scanner.
fs::path real_path(const fs::path& path) {
  std::error_code fault;
  fs::path out = fs::weakly_canonical(path, fault);
  if (!fault) return out;
  if (is_machines(fault.value()))
    throw MachineError(in_file(path.string()), "cannot be looked at: " + fault.message());
  return path.lexically_normal();
}

// Code scanners want real paths: through no link.
std::string from_root(const ReportOptions& options, const fs::path& path) {
  const fs::path whole = real_path(options.working_folder / path);
  const fs::path relative = whole.lexically_relative(real_path(options.root));
  const bool outside = relative.empty() || *relative.begin() == "..";
  return (outside ? whole : relative).generic_string();
}

bool is_judged(const EngineRun& run) {
  return run.not_planned.empty() && (!run.plan || run.plan->not_known.empty());
}

// "sglang@0.5.18 in 2 of 3 deployments".
std::string in_some(const std::string& label, int64_t count, const Report& report) {
  const auto all = static_cast<int64_t>(report.deployments.size());
  return count == all ? label
                      : fmt::format("{} in {} of {} {}", label, count, all,
                                    report.alone.empty() ? "deployments" : "adapters");
}

// For whom was checked, and for whom that was asked for and could not be done.
std::string engines_text(const Report& report) {
  std::vector<std::string> judged, unjudged;
  for (size_t e = 0; e < report.deployments.front().engines.size(); ++e) {
    int64_t count = 0;
    for (const Deployment& deployment : report.deployments)
      count += is_judged(deployment.engines[e]) ? 1 : 0;
    const std::string label = report.deployments.front().engines[e].choice.label();
    if (count > 0)
      judged.push_back(in_some(label, count, report));
    else
      unjudged.push_back(label);
  }
  if (judged.empty() && unjudged.empty())
    return "; no --engine: only the rules of all engines were run";
  std::string out;
  if (!judged.empty()) out += fmt::format("; checked for {}", fmt::join(judged, ", "));
  if (!unjudged.empty()) out += fmt::format("; not checked for {}", fmt::join(unjudged, ", "));
  return out;
}

// By deployment and adapter; what is of none comes behind those of all.
auto place_of(const Section& section) {
  return std::make_pair(section.deployment, section.adapter.value_or(SIZE_MAX));
}

// Those of a sorted list that are of one section: a thousand adapters have ten thousand findings.
template <class T, class SectionOf>
auto range_of(const std::vector<T>& sorted, const Section& section, SectionOf section_of_entry) {
  const auto wanted = place_of(section);
  const auto first = std::partition_point(sorted.begin(), sorted.end(), [&](const T& entry) {
    return place_of(section_of_entry(entry)) < wanted;
  });
  const auto last = std::partition_point(first, sorted.end(), [&](const T& entry) {
    return place_of(section_of_entry(entry)) == wanted;
  });
  return std::make_pair(first, last);
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
  if (counts.information > 0) parts.push_back(fmt::format("{} informational", counts.information));
  return parts.empty() ? "no findings" : fmt::format("{}", fmt::join(parts, ", "));
}

std::string waived_line(const Report& report, const Waived& waived) {
  return fmt::format("ignored {} in {}: {} ({})", rule_title(waived.finding),
                     adapter_title(report, waived.finding), one_line(waived.reason),
                     one_line(waived.from));
}

std::string adapter_title(const Report& report, const Section& section) {
  const Deployment& deployment = report.deployments[section.deployment];
  if (section.adapter) return one_line(deployment.adapters[*section.adapter].given);
  return deployment.name.empty() ? "the deployment"
                                 : "the deployment of " + one_line(deployment.name);
}

std::string adapter_title(const Report& report, const Finding& finding) {
  return adapter_title(report, section_of(finding));
}

std::vector<const Finding*> findings_of(const RuleResults& results, const Section& section) {
  std::vector<const Finding*> out;
  const auto [first, last] = range_of(results.findings, section, section_of);
  for (auto at = first; at != last; ++at) out.push_back(&*at);
  return out;
}

std::vector<Section> sections(const Report& report) {
  std::vector<Section> out;
  for (size_t d = 0; d < report.deployments.size(); ++d) {
    for (size_t i = 0; i < report.deployments[d].adapters.size(); ++i) out.push_back({d, i});
    if (!findings_of(report.results, {d, std::nullopt}).empty()) out.push_back({d, std::nullopt});
  }
  return out;
}

std::vector<const Subject*> adapters_of(const Report& report) {
  std::vector<const Subject*> out;
  for (const Deployment& deployment : report.deployments)
    for (const Subject& adapter : deployment.adapters) out.push_back(&adapter);
  return out;
}

std::vector<std::string> served_texts(const Report& report, const Section& section) {
  std::vector<std::string> out;
  const auto [first, last] = range_of(report.results.served, section, [](const Served& served) {
    return Section{served.deployment, served.adapter};
  });
  for (auto at = first; at != last; ++at) out.push_back(one_line(at->text));
  return out;
}

std::vector<FindingGroup> grouped(std::span<const Finding> findings) {
  std::vector<FindingGroup> groups;
  std::map<std::tuple<const Rule*, std::string, Section>, size_t> index;
  for (const Finding& finding : findings) {
    const auto [at, is_new] =
        index.try_emplace({finding.rule, finding.engine, section_of(finding)}, groups.size());
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
  const auto& adapters = report.deployments[finding.deployment].adapters;
  if (adapters.empty()) return file;
  const Subject& adapter = adapters[finding.adapter.value_or(0)];
  return from_root(report.options, folder_of(adapter) / file);
}

Spot spot_of(const Report& report, const Finding& finding) {
  const auto& adapters = report.deployments[finding.deployment].adapters;
  if (adapters.empty()) return {kConfig};
  const std::string file = file_to_show(finding, adapters[finding.adapter.value_or(0)]);
  const bool known = finding.line > 0 && file == finding.file;
  return {path_of(report, finding, file), known ? finding.line : 1,
          known ? std::max(finding.column, 1) : 1};
}

std::vector<Remark> remarks(const Report& report) {
  std::vector<Remark> out;
  if (!report.options.project.empty())
    out.push_back({"note", "project file: " + report.options.project});
  for (const std::string& note : report.results.notes) out.push_back({"note", note});
  for (const Skipped& skipped : report.results.skipped)
    out.push_back({"not checked", skipped.what + ": " + skipped.why});
  return out;
}

std::vector<Remark> remarks_and_served(const Report& report) {
  std::vector<Remark> out;
  for (const Section& section : sections(report))
    for (const std::string& text : served_texts(report, section))
      out.push_back({"served", adapter_title(report, section) + ": " + text});
  for (Remark& remark : remarks(report)) out.push_back(std::move(remark));
  return out;
}

std::vector<const EngineRun*> with_memory(const Report& report) {
  std::vector<const EngineRun*> out;
  std::set<std::string> seen;
  for (const Deployment& deployment : report.deployments)
    for (const EngineRun& run : deployment.engines) {
      if (!run.plan || run.plan->memory.rows.empty()) continue;
      const MemoryPlan& memory = run.plan->memory;
      const std::string same =
          fmt::format("{} {} {}", run.choice.label(), memory.slot_bytes(), memory.rows.size());
      if (report.alone.empty() || seen.insert(same).second) out.push_back(&run);
    }
  return out;
}

int64_t tensors_of(const Report& report, const Section& section) {
  if (!report.alone.empty()) return report.alone[section.deployment].tensors;
  const Subject& adapter = report.deployments[section.deployment].adapters[*section.adapter];
  return static_cast<int64_t>(adapter.tensors.size());
}

std::string slots_text(const MemoryPlan& memory) {
  return fmt::format("slot {}, {} {}", size_text(memory.slot_bytes()),
                     pluralized(memory.slots, "slot"), size_text(memory.total_bytes()));
}

std::string summary_line(const Report& report) {
  std::string out = fmt::format("{} in {}", counts_text(count_findings(report.results.findings)),
                                pluralized(adapters_of(report).size(), "adapter"));
  if (!report.waived.empty()) out += fmt::format(", {} ignored", report.waived.size());
  return out + engines_text(report);
}

}  // namespace moelora
