// SARIF 2.1.0 as GitHub code scanning takes it: the first location counts, binaries cannot be
// annotated, and `suppressions` is not looked at (github/codeql-action#1230: what carries one is
// shown as open), so waived findings are notifications, not results.

#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "lib/base/digest.h"
#include "lib/base/utf8.h"
#include "lib/base/version.h"
#include "lib/check/report_parts.h"
#include "lib/io/json.h"

namespace moelora {
namespace {

constexpr size_t kNamesShown = 20;

using RuleIndex = std::map<std::string_view, std::pair<const Rule*, int64_t>>;

// A scanner's page shows these as they are.
std::string shown(std::string_view value) { return printable_lines(std::string(value)); }

Json message(std::string_view value) { return Json::object({{"text", shown(value)}}); }

const char* level(Severity severity) {
  return severity == Severity::error ? "error" : severity == Severity::warning ? "warning" : "note";
}

// Bytes that a URI may not hold are escaped, and so is whatever is not ASCII.
std::string uri(const std::string& path) {
  std::string out = path.starts_with('/') ? "file://" : "";
  for (const char c : path) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       std::string_view("/-._~").find(c) != std::string_view::npos;
    out += plain ? std::string(1, c) : fmt::format("%{:02X}", static_cast<unsigned char>(c));
  }
  return out;
}

Json file_location(const std::string& path, int line, int column) {
  return Json::object({{"physicalLocation",
                        Json::object({{"artifactLocation", Json::object({{"uri", uri(path)}})},
                                      {"region", Json::object({{"startLine", line},
                                                               {"startColumn", column},
                                                               {"endLine", line},
                                                               {"endColumn", column + 1}})}})}});
}

std::vector<std::string> first_names(const FindingGroup& group) {
  const size_t count = std::min(group.names.size(), kNamesShown);
  return {group.names.begin(), group.names.begin() + static_cast<std::ptrdiff_t>(count)};
}

Json logical_locations(const FindingGroup& group) {
  std::vector<Json> out;
  const auto add = [&](std::string_view name, const char* kind) {
    out.push_back(Json::object({{"fullyQualifiedName", shown(name)}, {"kind", kind}}));
  };
  for (const std::string& name : first_names(group)) add(name, "resource");
  if (out.empty() && !group.first().where.empty()) add(group.first().where, "property");
  return Json::array(std::move(out));
}

Json location(const Report& report, const FindingGroup& group) {
  const Spot spot = spot_of(report, group.first());
  Json out = file_location(spot.path, spot.line, spot.column);
  Json logical = logical_locations(group);
  if (!logical.items().empty()) out.set("logicalLocations", std::move(logical));
  return out;
}

// The same fault of the same adapter stays one alert, whatever its numbers are next time.
std::string fingerprint(const Report& report, const FindingGroup& group) {
  const Finding& f = group.first();
  const std::string key =
      fmt::format("{}\n{}\n{}", f.rule->id, f.engine, path_of(report, f, "adapter_config.json"));
  return digest_hex(std::as_bytes(std::span(key))).substr(0, 16) + ":1";
}

std::string message_text(const FindingGroup& group) {
  const Finding& f = group.first();
  std::string out = finding_line(group);
  if (!out.ends_with('.')) out += '.';
  if (!f.engine.empty()) out += fmt::format("\n{}", f.engine);
  if (!f.server_text.empty()) out += " says: " + printed_lines(f.server_text);
  if (!f.fix.empty()) out += "\nFix: " + f.fix;
  // "[8](x)" would be a link.
  for (size_t at = out.find("]("); at != std::string::npos; at = out.find("](", at))
    out.replace(at, 2, "] (");
  return out;
}

Json result(const Report& report, const FindingGroup& group, const RuleIndex& rules) {
  const Finding& f = group.first();
  std::vector<std::string> names;
  for (const std::string& name : first_names(group)) names.push_back(shown(name));
  return Json::object(
      {{"ruleId", f.rule->id},
       {"ruleIndex", rules.at(f.rule->id).second},
       {"level", level(group.severity)},
       {"message", message(message_text(group))},
       {"locations", Json::array({location(report, group)})},
       {"partialFingerprints",
        Json::object({{"primaryLocationLineHash", fingerprint(report, group)}})},
       {"properties", Json::object({{"adapter", shown(adapter_title(report, f))},
                                    {"engine", f.engine},
                                    {"count", static_cast<int64_t>(group.names.size())},
                                    {"names", Json::strings(names)}})}});
}

Json rule_json(const Rule& rule) {
  Json out = Json::object(
      {{"id", rule.id},
       {"name", rule.name},
       {"shortDescription", message(rule.what)},
       {"fullDescription", message(rule.why)},
       {"help", Json::object({{"text", shown(rule_page(rule))},
                              {"markdown", shown(rule_page_markdown(rule))}})},
       {"defaultConfiguration", Json::object({{"level", level(rule.severity)}})},
       {"properties",
        Json::object({{"precision", "very-high"},
                      {"problem.severity", rule.severity == Severity::information
                                               ? "recommendation"
                                               : severity_name(rule.severity)},
                      {"tags", Json::strings({"lora", rule.engine == nullptr
                                                          ? std::string("adapter")
                                                          : std::string(rule.engine->id)})}})}});
  if (const std::string url = source_url(rule); !url.empty()) out.set("helpUri", url);
  return out;
}

RuleIndex rules_of(const std::vector<FindingGroup>& groups) {
  RuleIndex out;
  for (const FindingGroup& group : groups) out[group.first().rule->id] = {group.first().rule, 0};
  int64_t next = 0;
  for (auto& entry : out) entry.second.second = next++;
  return out;
}

Json notification(std::string_view text) {
  return Json::object({{"level", "note"}, {"message", message(text)}});
}

Json invocation(const Report& report) {
  std::vector<Json> notes;
  for (const Waived& w : report.waived) notes.push_back(notification(waived_line(report, w)));
  for (const Remark& remark : remarks_and_served(report))
    notes.push_back(notification(fmt::format("{}: {}", remark.label, one_line(remark.text))));
  return Json::object({{"executionSuccessful", true},
                       {"toolExecutionNotifications", Json::array(std::move(notes))}});
}

// Uploads of one category replace each other: adapters checked by different jobs are different.
std::string category(const Report& report) {
  std::vector<std::string> paths;
  for (const Subject* adapter : adapters_of(report)) paths.push_back(one_line(adapter->given));
  const std::string all = fmt::format("{}", fmt::join(paths, "+"));
  return fmt::format("lora-validate/{}/",
                     all.size() <= 100 ? all : digest_hex(std::as_bytes(std::span(all))));
}

Json run_json(const Report& report) {
  const std::vector<FindingGroup> groups = grouped(report.results.findings);
  const RuleIndex index = rules_of(groups);
  std::vector<Json> rules, results;
  for (const auto& entry : index) rules.push_back(rule_json(*entry.second.first));
  for (const FindingGroup& group : groups) results.push_back(result(report, group, index));
  return Json::object(
      {{"tool",
        Json::object({{"driver", Json::object({{"name", "lora-validate"},
                                               {"semanticVersion", version()},
                                               {"rules", Json::array(std::move(rules))}})}})},
       {"automationDetails", Json::object({{"id", category(report)}})},
       {"columnKind", "unicodeCodePoints"},
       {"invocations", Json::array({invocation(report)})},
       {"results", Json::array(std::move(results))}});
}

std::string write(const Report& report) {
  return Json::object({{"$schema", "https://json.schemastore.org/sarif-2.1.0.json"},
                       {"version", "2.1.0"},
                       {"runs", Json::array({run_json(report)})}})
             .dump() +
         "\n";
}

}  // namespace

const ReportFormat reports::sarif = {
    .id = "sarif",
    .summary = "SARIF 2.1.0, for code scanning",
    .write = write,
};

}  // namespace moelora
