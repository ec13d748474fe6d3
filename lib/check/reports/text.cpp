#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "lib/base/utf8.h"
#include "lib/check/page/coverage.h"
#include "lib/check/report_parts.h"
#include "lib/check/report_rows.h"

namespace moelora {
namespace {

enum class Style : uint8_t { bold, dim, error, warning, information };

Style style_of(Severity severity) {
  return severity == Severity::error     ? Style::error
         : severity == Severity::warning ? Style::warning
                                         : Style::information;
}

class Text {
 public:
  explicit Text(const Report& report) : report_(report) {}

  std::string write() {
    const bool concise = is_concise(report_);
    if (concise)
      tables();
    else
      for (const Section& section : sections(report_)) adapter(section);
    for (const Waived& w : report_.waived) out_ += waived_line(report_, w) + "\n";
    if (!report_.waived.empty()) out_ += "\n";
    if (report_.options.verbose)
      for (const EngineRun* run : with_memory(report_)) memory(*run);
    if (report_.options.verbose && report_.options.blocks) pictures();
    all_remarks(concise ? few_remarks(report_) : remarks(report_));
    out_ += paint(Style::bold, prose(summary_line(report_), 0)) + "\n";
    return std::move(out_);
  }

 private:
  std::string paint(Style style, std::string_view text) const {
    if (!report_.options.color) return std::string(text);
    constexpr std::array kCodes = {"1", "2", "1;31", "1;33", "1;36"};
    return fmt::format("\x1b[{}m{}\x1b[0m", kCodes[static_cast<size_t>(style)], text);
  }

  std::string prose(std::string_view text, size_t indent) const {
    return wrapped(text, report_.options.width, indent);
  }

  // A row an adapter, and a row a rule.
  void tables() {
    std::vector<std::vector<std::string>> cells{{"adapter", "worst", "findings", "first"}};
    for (const AdapterRow& row : listed_rows(report_))
      cells.push_back({adapter_title(report_, row.section), std::string(row.worst()),
                       std::to_string(row.counts.all()),
                       row.first == nullptr ? "" : first_text(*row.first)});
    if (cells.size() > 1) out_ += text_table(std::move(cells));
    if (const std::string more = unlisted_line(report_); !more.empty()) out_ += more + "\n";
    for (const std::string& line : served_lines(report_)) out_ += line + "\n";
    out_ += "\n";
    cells = {{"rule", "severity", "engine", "in", "first in"}};
    for (const RuleRow& row : rule_rows(report_))
      cells.push_back({rule_title(*row.first), std::string(severity_name(row.first->severity)),
                       row.first->engine, in_adapters(row), adapter_title(report_, *row.first)});
    if (cells.size() == 1) return;
    out_ += text_table(std::move(cells));
    out_ += "-v lists every finding with its fix; --explain RULE says what a rule means.\n\n";
  }

  void adapter(const Section& at) {
    const auto findings = findings_of(report_.results, at);
    out_ += paint(Style::bold, adapter_title(report_, at)) + ": " +
            counts_text(count_findings(findings)) + "\n";
    for (const std::string& text : served_texts(report_, at)) out_ += "  " + text + "\n";
    for (const Finding* f : findings) finding(*f);
    out_ += "\n";
  }

  void finding(const Finding& f) {
    const std::string engine = f.engine.empty() ? "" : " for " + f.engine;
    out_ += fmt::format("  {} {}{}{}\n", paint(style_of(f.severity), severity_name(f.severity)),
                        paint(Style::bold, rule_title(f)), engine, place_in_file(f));
    out_ += "    " + prose(finding_line(f), 4) + "\n";
    labelled("server: ", server_lines(f.server_text));
    if (report_.options.verbose || f.severity != Severity::information)
      labelled("fix: ", one_line(f.fix));
    if (report_.options.verbose && f.names.size() > 1) labelled("all: ", lines_of(f.names));
  }

  // torch names every tensor of another size, in a line each behind a tab.
  std::string server_lines(const std::string& text) const {
    constexpr int64_t kMost = 3;
    const int64_t more = std::count(text.begin(), text.end(), '\n') - kMost;
    std::string out;
    int64_t line = 0;
    for (const char c : text) {
      line += c == '\n';
      if (c != '\t' && (line <= kMost || report_.options.verbose)) out += c;
    }
    return more > 0 && !report_.options.verbose ? out + fmt::format("\n... and {} more", more)
                                                : out;
  }

  static std::string lines_of(const std::vector<std::string>& names) {
    std::string out;
    for (const std::string& name : names) out += (out.empty() ? "" : "\n") + one_line(name);
    return out;
  }

  static std::string place_in_file(const Finding& f) {
    if (f.file.empty() || f.line == 0) return "";
    return fmt::format(", {}:{}:{}", one_line(f.file), f.line, f.column);
  }

  // Never wrapped, so that it can be searched for or pasted; the server's may have several lines.
  void labelled(std::string_view label, std::string_view text) {
    if (text.empty()) return;
    std::string before = "    " + paint(Style::dim, label);
    for (size_t begin = 0; begin <= text.size();) {
      const size_t end = std::min(text.find('\n', begin), text.size());
      out_ += before + one_line(text.substr(begin, end - begin)) + "\n";
      before = std::string(4 + label.size(), ' ');
      begin = end + 1;
    }
  }

  void memory(const EngineRun& run) {
    const MemoryPlan& plan = run.plan->memory;
    out_ += fmt::format("memory of {} on one device, {}:\n", run.choice.label(), plan.dtype);
    std::vector<std::vector<std::string>> cells{{"buffer", "shape", "layers", "bytes"}};
    for (const MemoryRow& row : plan.rows)
      cells.push_back({row.buffer, to_string(row.shape), std::to_string(row.layers),
                       std::to_string(row.bytes)});
    out_ += text_table(std::move(cells));
    out_ += "one " + slots_text(plan) + "\n\n";
  }

  void pictures() {
    constexpr size_t kMost = 4, kLabels = 34, kTwo = 2;  // kTwo: columns of the terminal for a cell
    const size_t width = std::max(report_.options.width, kLabels + 20);
    for (Coverage& each : coverages(report_, kMost)) {
      each.grid.title = each.title;
      out_ += page::grid_blocks(page::narrowed(each.grid, (width - kLabels) / kTwo)) + "\n";
    }
  }

  void all_remarks(const std::vector<Remark>& all) {
    for (const Remark& remark : all) {
      const std::string_view label = remark.label;
      const std::string text = prose(fmt::format("{}: {}", label, one_line(remark.text)), 2);
      out_ += paint(Style::dim, label) + text.substr(label.size()) + "\n";
    }
    if (!all.empty()) out_ += "\n";
  }

  const Report& report_;
  std::string out_;
};

std::string write(const Report& report) { return Text(report).write(); }

}  // namespace

const ReportFormat reports::text = {
    .id = "text",
    .summary = "for people, grouped by adapter; with -v every name and each server's memory",
    .write = write,
};

}  // namespace moelora
