// lora-validate: what a server would refuse, drop or compute wrongly, said before it starts.

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "lib/base/error.h"
#include "lib/check/explain.h"
#include "lib/check/report.h"
#include "lib/check/report_parts.h"
#include "lib/check/validate.h"
#include "tools/tool.h"
#include "tools/validate/step_summary.h"
#include "tools/validate/validate_options.h"

namespace moelora {
namespace {

constexpr const char* kTool = "lora-validate";

int run_list(const ValidateOptions& options) {
  for (const char* format : {"text", "markdown", "json"})
    if (options.format == format) {
      print_data(options.common, list_rules(format));
      return kClean;
    }
  throw Error("--list-rules", fmt::format("cannot be printed as {}", options.format),
              "use --format text, markdown or json");
}

int run_explain(const ValidateOptions& options) {
  const Rule& rule = rule_named(options.explain, at_option(Option::explain));
  print_data(options.common, explain(rule, report_options(options).width));
  return kClean;
}

void note_unused(const ValidateOptions& options, const ValidateRequest& request,
                 const ValidationReport& result) {
  for (const Waiver* waiver : unused(request.waivers, result.waived))
    print_note(
        options.common, kTool,
        fmt::format("{}: nothing to ignore: {} found nothing", waiver->from, waiver->rule->id));
}

int run_judge(const ValidateOptions& options) {
  const ValidateRequest request = validate_request(options);
  const ValidationReport result = validate(request);
  const Report report{result.deployment, result.results, result.waived, report_options(options)};
  note_unused(options, request, result);
  print_data(options.common, find_report_format(options.format)->write(report));
  if (options.format == "github")
    append_step_summary(find_report_format("markdown")->write(report));
  if (!options.common.output.empty()) print_note(options.common, kTool, summary_line(report));
  return fails(report) ? kFindings : kClean;
}

}  // namespace

int main_(int argc, char** argv) {
  CLI::App app("Says what a server would refuse, drop or compute wrongly, before it starts", kTool);
  app.set_version_flag("--version", [] { return version_line(kTool); });
  app.footer(engines_help);
  ValidateOptions options;
  add_validate_options(app, options);
  return run_tool(app, argc, argv, [&] {
    if (options.list_rules) return run_list(options);
    return options.explain.empty() ? run_judge(options) : run_explain(options);
  });
}

}  // namespace moelora

int main(int argc, char** argv) { return moelora::main_(argc, argv); }
