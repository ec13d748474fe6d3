// A suite an adapter. What fails the run is a failure, every other finding a passed case that
// shows it; an adapter without findings has one passed case, so that no CI says "no tests".

#include <fmt/core.h>

#include "lib/base/utf8.h"
#include "lib/check/report_parts.h"

namespace moelora {
namespace {

constexpr size_t kNamesShown = 20;

std::string xml(std::string_view text) { return xml_escaped(text); }

std::string case_begin(std::string_view name, std::string_view adapter) {
  return fmt::format("    <testcase name=\"{}\" classname=\"{}\"", xml(name), xml(adapter));
}

std::string details(const Finding& f) {
  std::string out = finding_line(f, kNamesShown) + "\n";
  if (!f.server_text.empty()) out += "server: " + one_line(f.server_text) + "\n";
  if (!f.fix.empty()) out += "fix: " + one_line(f.fix) + "\n";
  return out;
}

std::string finding_case(const Finding& f, std::string_view adapter, const ReportOptions& options) {
  const std::string name = rule_title(f) + (f.engine.empty() ? "" : " " + f.engine);
  std::string out = case_begin(name, adapter) + ">\n";
  if (fails(f, options))
    out += fmt::format("      <failure type=\"{}\" message=\"{}\">{}</failure>\n",
                       severity_name(f.severity), xml(finding_line(f)), xml(details(f)));
  else
    out += fmt::format("      <system-out>{}: {}</system-out>\n", severity_name(f.severity),
                       xml(details(f)));
  return out + "    </testcase>\n";
}

struct Suite {
  std::string cases;
  int64_t tests = 0, failures = 0, skipped = 0;

  std::string text(std::string_view name) const {
    return fmt::format(
        "  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"0\" skipped=\"{}\">\n"
        "{}  </testsuite>\n",
        xml(name), tests, failures, skipped, cases);
  }
};

Suite adapter_suite(const Report& report, const Section& at) {
  const std::string adapter = adapter_title(report, at);
  Suite out;
  for (const Finding* f : findings_of(report.results, at)) {
    out.cases += finding_case(*f, adapter, report.options);
    ++out.tests;
    if (fails(*f, report.options)) ++out.failures;
  }
  for (const std::string& text : served_texts(report, at)) {
    out.cases += case_begin(text, adapter) + "/>\n";
    ++out.tests;
  }
  if (out.tests == 0) {
    out.cases = case_begin("no findings", adapter) + "/>\n";
    out.tests = 1;
  }
  return out;
}

// What was waived or could not be checked, one skipped case each.
Suite skipped_suite(const Report& report) {
  Suite out;
  const auto add = [&](std::string_view name, std::string_view why) {
    out.cases +=
        case_begin(name, "not checked") +
        fmt::format(">\n      <skipped message=\"{}\"/>\n    </testcase>\n", xml(one_line(why)));
    ++out.tests;
    ++out.skipped;
  };
  for (const Waived& w : report.waived)
    add(fmt::format("{} in {}", rule_title(w.finding), adapter_title(report, w.finding)),
        fmt::format("ignored: {} ({})", w.reason, w.from));
  for (const Skipped& s : report.results.skipped) add(one_line(s.what), s.why);
  return out;
}

std::string write(const Report& report) {
  std::string suites;
  int64_t tests = 0, failures = 0;
  const auto add = [&](const Suite& suite, std::string_view name) {
    suites += suite.text(name);
    tests += suite.tests;
    failures += suite.failures;
  };
  for (const Section& section : sections(report))
    add(adapter_suite(report, section), adapter_title(report, section));
  if (const Suite skipped = skipped_suite(report); skipped.tests > 0) add(skipped, "not checked");
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
      "<testsuites name=\"lora-validate\" tests=\"{}\" failures=\"{}\" errors=\"0\">\n"
      "{}</testsuites>\n",
      tests, failures, suites);
}

}  // namespace

const ReportFormat reports::junit = {
    .id = "junit",
    .summary = "JUnit XML, a suite an adapter",
    .write = write,
};

}  // namespace moelora
