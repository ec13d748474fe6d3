#include "lib/check/report.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "lib/base/utf8.h"
#include "lib/check/report_text.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/io/json.h"

namespace moelora {
namespace {

constexpr std::array kAll = {
#define MOELORA_ENTRY(name) &reports::name,
#include "reports.inc"
#undef MOELORA_ENTRY
};

std::string section(const char* title, std::string_view text, size_t width) {
  return text.empty() ? "" : fmt::format("\n{}:\n  {}\n", title, wrapped(text, width, 2));
}

// What the rule finds in its own example; null when it finds nothing there.
const Finding* own_finding(const Rule& rule, const RuleResults& results) {
  const auto at = std::find_if(results.findings.begin(), results.findings.end(),
                               [&](const Finding& f) { return f.rule == &rule; });
  return at == results.findings.end() ? nullptr : &*at;
}

std::string example(const Rule& rule, size_t width) {
  if (rule.breaks.change.empty()) return "";
  const RuleResults results = run_rules(example_of(rule));
  std::string out = fmt::format(
      "\nexample:\n  {}\n",
      wrapped(fmt::format("In the sound adapter {}: {}.", rule.breaks.specimen, rule.breaks.change),
              width, 2));
  if (const Finding* f = own_finding(rule, results)) {
    out += fmt::format("  {}{}: {}\n", severity_name(f->severity),
                       f->engine.empty() ? "" : " for " + f->engine,
                       wrapped(finding_line(*f), width, 2));
    if (!f->server_text.empty()) out += "  server: " + one_line(f->server_text) + "\n";
  }
  return out;
}

std::string heading(const Rule& rule) {
  return fmt::format("{} {} ({}, {})\n", rule.id, rule.name, severity_name(rule.severity),
                     rule_scope(rule));
}

constexpr const char* kConvert = "lora-convert adapter ADAPTER OUT";

// The command that a finding would have, and what to do where there is none.
std::string fix_of(const Rule& rule) {
  const std::string by_hand = fill_holes(rule.fix, {kConvert, "ADAPTER", "BASE"});
  if (rule.remedy == Remedy::by_hand) return by_hand;
  std::string line = kConvert;
  line += rule.remedy == Remedy::for_engine
              ? fmt::format(" --for {}", rule.engine != nullptr ? rule.engine->id : "ENGINE")
              : fmt::format(" --to {}", rule.remedy_to.empty() ? "LAYOUT" : rule.remedy_to);
  if (rule.remedy == Remedy::for_engine && !rule.remedy_to.empty())
    line += fmt::format(" --to {}", rule.remedy_to);
  if (!rule.remedy_dtype.empty()) line += fmt::format(" --dtype {}", rule.remedy_dtype);
  return fmt::format("{} --base BASE; where that is refused: {}", line, by_hand);
}

std::string needs(const Rule& rule) {
  std::vector<std::string_view> out;
  if (rule.requires_base()) out.emplace_back("--base");
  if (rule.numeric) out.emplace_back("--numeric");
  if (rule.needs_source) out.emplace_back("--source");
  if (rule.needs_values) out.emplace_back("the tensors' values");
  return fmt::format("{}", fmt::join(out, " and "));
}

std::string table_text() {
  std::vector<std::vector<std::string>> cells{{"id", "name", "severity", "for", "fires when"}};
  for (const Rule* rule : all_rules())
    cells.push_back({std::string(rule->id), std::string(rule->name),
                     std::string(severity_name(rule->severity)), rule_scope(*rule),
                     std::string(rule->what)});
  return text_table(std::move(cells));
}

std::string table_markdown() {
  std::string out = "| id | name | severity | for | fires when |\n|---|---|---|---|---|\n";
  for (const Rule* rule : all_rules())
    out += fmt::format("| {} | {} | {} | {} | {} |\n", rule->id, rule->name,
                       severity_name(rule->severity), rule_scope(*rule), md_text(rule->what));
  return out;
}

Json text_or_null(std::string_view text) { return text.empty() ? Json() : Json(text); }

Json rule_json(const Rule& rule) {
  return Json::object({{"id", rule.id},
                       {"name", rule.name},
                       {"severity", severity_name(rule.severity)},
                       {"engine", rule.engine == nullptr ? Json() : Json(rule.engine->id)},
                       {"since", text_or_null(rule.since)},
                       {"until", text_or_null(rule.until)},
                       {"needs_base", rule.requires_base()},
                       {"needs_values", rule.needs_values},
                       {"numeric", rule.numeric},
                       {"needs_source", rule.needs_source},
                       {"whole_deployment", rule.whole_deployment},
                       {"what", rule.what},
                       {"why", rule.why},
                       {"fix", fix_of(rule)},
                       {"source", rule.source}});
}

std::string table_json() {
  std::vector<Json> rules;
  for (const Rule* rule : all_rules()) rules.push_back(rule_json(*rule));
  return Json::object({{"schema", "moelora.rules/1"}, {"rules", Json::array(std::move(rules))}})
             .dump() +
         "\n";
}

}  // namespace

std::span<const ReportFormat* const> all_report_formats() { return kAll; }

const ReportFormat* find_report_format(std::string_view id) {
  const auto it = std::find_if(kAll.begin(), kAll.end(),
                               [&](const ReportFormat* format) { return format->id == id; });
  return it == kAll.end() ? nullptr : *it;
}

bool fails(const Finding& finding, const ReportOptions& options) {
  return finding.unjudged || (options.fail_on && finding.severity >= *options.fail_on);
}

bool fails(const Report& report) {
  return std::any_of(report.results.findings.begin(), report.results.findings.end(),
                     [&](const Finding& finding) { return fails(finding, report.options); });
}

std::string rule_scope(const Rule& rule) {
  if (rule.engine == nullptr) return "any";
  std::string out(rule.engine->id);
  if (!rule.since.empty()) out += fmt::format(" from {}", rule.since);
  if (!rule.until.empty()) out += fmt::format(" before {}", rule.until);
  return out;
}

std::string source_url(const Rule& rule) {
  const size_t begin = rule.source.find("https://");
  if (begin == std::string_view::npos) return "";
  const std::string_view rest = rule.source.substr(begin);
  return std::string(rest.substr(0, rest.find_first_of(" ,;)>\n")));
}

std::string explain(const Rule& rule, size_t width) {
  return heading(rule) + section("fires when", rule.what, width) + section("why", rule.why, width) +
         section("needs", needs(rule), width) + section("source", rule.source, width) +
         example(rule, width) + section("fix", fix_of(rule), 0);
}

std::string rule_page(const Rule& rule) {
  return fmt::format("{}\n\nWhy: {}\n\nFix: {}\n\nSource: {}", rule.what, rule.why, fix_of(rule),
                     rule.source);
}

std::string rule_page_markdown(const Rule& rule) {
  return fmt::format("{}\n\n**Why**: {}\n\n**Fix**: {}\n\n**Source**: {}\n", md_text(rule.what),
                     md_text(rule.why), md_text(fix_of(rule)), md_text(rule.source));
}

std::string list_rules(std::string_view format) {
  if (format == "markdown") return table_markdown();
  return format == "json" ? table_json() : table_text();
}

}  // namespace moelora
