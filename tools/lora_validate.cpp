// lora-validate: what a server would reject, drop or compute incorrectly, before it starts.

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "lib/adapter/adapter_search.h"
#include "lib/base/error.h"
#include "lib/check/ignore.h"
#include "lib/check/report.h"
#include "tools/validate/step_summary.h"
#include "tools/validate/validate_options.h"

namespace moelora {
namespace {

constexpr const char* kTool = "lora-validate";

int run_list(ValidateFlags& flags) {
  open_output(flags.common, {});
  for (const char* format : {"text", "markdown", "json"})
    if (flags.format == format) {
      print_data(flags.common, list_rules(format));
      return kClean;
    }
  throw Error("--list-rules", fmt::format("cannot be printed as {}", flags.format),
              "use --format text, markdown or json");
}

int run_explain(ValidateFlags& flags) {
  open_output(flags.common, {});
  const Rule* const rule = &rule_named(flags.explain, at_option(Option::explain));
  print_data(flags.common, explain(*rule, report_options(flags).width));
  return kClean;
}

// The repaired adapter, judged as the one that was given; that one's findings where nothing repairs
// it whole.
Validation fixed(const ValidateFlags& flags, Validation found) {
  const Repair* repair = find_repair(found);
  if (repair == nullptr) {
    print_note(
        flags.common, kTool,
        fmt::format("{} is not written: no error or warning is one that lora-convert repairs "
                    "without leaving something out",
                    flags.fix));
    return found;
  }
  const ConvertResult made = repair_adapter(*repair, flags.fix, shown_job(flags.common.quiet));
  for (const std::string& note : made.notes) print_note(flags.common, kTool, note);
  print_note(flags.common, kTool,
             fmt::format("{}: written by {}", flags.fix, repair->command(flags.fix)));
  ValidateOptions options = validate_options(flags);
  options.from.clear();  // said of the input
  options.read = {};
  if (options.base.empty()) options.base = repair->load.base;
  return validate({flags.fix}, options);
}

// A report into a file is opened before any work.
void open_report(ValidateFlags& flags, const std::vector<std::string>& adapters) {
  std::vector<std::string> inputs = flags.load.inputs();
  inputs.insert(inputs.end(), adapters.begin(), adapters.end());
  inputs.insert(inputs.end(), {flags.source, project_file(flags)});
  open_output(flags.common, inputs, flags.fix);
}

void refuse_several(const std::vector<std::string>& adapters) {
  const size_t count = find_adapters(adapters).paths.size();
  if (count > 1)
    throw Error("--fix", fmt::format("repairs one adapter, {} are named", count),
                "run it once for each");
}

int run_validate(ValidateFlags& flags) {
  const std::vector<std::string> adapters = named_adapters(flags);
  open_report(flags, adapters);
  const ReportOptions how = report_options(flags);
  if (!flags.fix.empty()) refuse_several(adapters);
  Validation found = validate(adapters, validate_options(flags));
  if (!flags.fix.empty()) found = fixed(flags, std::move(found));
  for (const std::string& note : found.unused_ignores) print_note(flags.common, kTool, note);
  const DataKind kind = flags.format == "github" ? DataKind::commands
                        : how.color              ? DataKind::colored
                                                 : DataKind::plain;
  print_data(flags.common, report(found, flags.format, how), kind);
  if (flags.format == "github") append_step_summary(report(found, "markdown", how));
  if (!flags.common.output.empty()) print_note(flags.common, kTool, summary(found, how));
  switch (found.outcome(how.fail_on)) {
    case Outcome::findings:
      return kFindings;
    case Outcome::not_judged:
      return kFailed;
    case Outcome::clean:
      break;
  }
  return kClean;
}

std::string help_end() {
  return engines_help() + "\n\n" +
         examples({"lora-validate my-adapter --engine sglang --base openai/gpt-oss-20b --tp 2",
                   "lora-validate -r checkpoints --engine vllm@0.22 --base BASE --max-lora-rank 64",
                   "lora-validate --explain SGL021"});
}

}  // namespace

int main_(int argc, char** argv) {
  CLI::App app(
      "Shows, before you start the server, what it would reject, drop, or compute incorrectly",
      kTool);
  app.footer(help_end);
  ValidateFlags flags;
  add_validate_options(app, flags);
  add_tool_options(app);
  return run_tool(app, argc, argv, [&] {
    if (flags.list_rules) return run_list(flags);
    return flags.explain.empty() ? run_validate(flags) : run_explain(flags);
  });
}

}  // namespace moelora

int main(int argc, char** argv) { return moelora::main_(argc, argv); }
