#include "tools/validate/validate_options.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/check/ignore.h"
#include "lib/check/report.h"
#include "lib/engine/engine.h"
#include "tools/page_origin.h"
#include "tools/sizes.h"
#include "tools/terminal.h"
#include "tools/validate/path_list.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

constexpr std::string_view kFromStdin = "-";

// One value a flag, so that no flag swallows the adapters behind it.
CLI::Option* add_list(CLI::App& app, const char* name, std::vector<std::string>& values,
                      const char* help, const char* type) {
  return app.add_option(name, values, help)->type_name(type)->allow_extra_args(false);
}

std::vector<std::string> format_ids() {
  std::vector<std::string> out;
  for (const ReportFormat* format : all_report_formats()) out.emplace_back(format->id);
  return out;
}

}  // namespace

void add_validate_options(CLI::App& app, ValidateFlags& o) {
  app.add_option(
         "ADAPTER", o.adapters,
         "Folder with adapter_config.json, or files in it; those of a base are one deployment. -: "
         "a list on stdin, checked one by one")
      ->type_name("");
  app.add_flag("-r,--recursive", o.recursive,
               "Find the adapters in the folders and below them, and check them one by one");
  app.add_flag("-0,--null", o.null_separated,
               "Paths of stdin end in a zero byte, not in a newline");
  app.add_option("--cache", o.cache,
                 "Skip adapters found clean before: same config, headers, base and options")
      ->type_name("DIR");
  add_list(app, "--engine", o.engines, "Server to check for: sglang, vllm or peft",
           "NAME[@VERSION]");
  add_load_options(app, o.load);
  const auto count = CLI::Range(1, 1 << 20);
  app.add_option("--tp", o.tp, "Tensor parallel size of the server")->type_name("N")->check(count);
  app.add_option("--ep", o.ep, "Expert parallel size")->type_name("N")->check(count);
  app.add_option("--max-lora-rank", o.max_lora_rank, "The server's limit")
      ->type_name("R")
      ->check(count);
  app.add_option("--max-loras", o.max_loras, "Adapters the server holds at once")
      ->type_name("N")
      ->check(count);
  app.add_option("--gpu-memory", o.gpu_memory, "Of one device: 80GB, 80GiB")->type_name("SIZE");
  app.add_option("--compute-capability", o.compute_capability, "Of the devices: 9.0")
      ->type_name("X")
      ->check(CLI::Range(1.0, 99.0));
  add_list(app, "--server-option", o.server_options, "Another option of the server, listed below",
           "KEY=VALUE");
  app.add_flag("--no-values", o.no_values, "Look at names and shapes only");
  app.add_flag("--numeric", o.numeric, "Also compute: what servers make of it, and of --source");
  app.add_option("--source", o.source, "The adapter that these were made from")
      ->type_name("ADAPTER")
      ->needs("--numeric");
  app.get_option("--numeric")->excludes("--cache");
  add_choice(app, "--device", o.device, "Where to compute; auto: on a GPU where there is one",
             {"auto", "cpu", "cuda"})
      ->needs("--numeric");
  app.add_flag("--no-forward", o.no_forward, "Compare bits and products, run no layer")
      ->needs("--source");
  app.add_option("--fix", o.fix,
                 "Run the lora-convert that the findings name, and report on its output")
      ->type_name("OUT")
      ->excludes("--recursive")
      ->excludes("--cache");
  add_choice(app, "--format", o.format, "Form of the report", format_ids());
  app.add_flag("-v,--verbose", o.verbose, "Every name, and the server's memory");
  app.add_flag("--concise", o.concise,
               "A line an adapter and a line a rule: so it is of more than 20")
      ->excludes("--verbose");
  add_choice(app, "--fail-on", o.fail_on, "What makes the exit status 1 (2: not checked)",
             {"error", "warning", "never"});
  add_list(app, "--ignore", o.ignore, "A rule not to fail for; a project file gives reasons",
           "ID|NAME")
      ->delimiter(',');
  app.add_option("--project", o.project,
                 "Project file (default: .moelora.json here or above, in the repository)")
      ->type_name("FILE");
  app.add_flag("--list-rules", o.list_rules, "Every rule, as text, markdown or json");
  app.add_option("--explain", o.explain, "What a rule checks and why, with an example")
      ->type_name("ID|NAME");
  add_common_options(app, o.common);
}

std::string engines_help() {
  std::string out = "Engines and server options:";
  for (const Engine* engine : all_engines()) {
    out += fmt::format("\n  {}@", engine->id);
    for (const Release& release : engine->releases)
      out += fmt::format("{}{}", &release == engine->releases.data() ? "" : "|", release.version);
    out += fmt::format(" (default {})", engine->newest);
    for (const ServerOption& option : engine->options())
      out += fmt::format("\n    {}: {}", option.key, option.summary);
  }
  return out;
}

std::string project_file(const ValidateFlags& flags) {
  std::error_code ignored;
  return flags.project.empty() ? find_project_file(fs::current_path(ignored).string())
                               : flags.project;
}

std::vector<std::string> named_adapters(const ValidateFlags& flags) {
  std::vector<std::string> out = flags.adapters;
  const auto list = std::find(out.begin(), out.end(), kFromStdin);
  if (list == out.end() && flags.null_separated)
    throw Error("--null", "is of a list on stdin, and none is read", "name - among the adapters");
  if (list != out.end()) {
    const std::vector<std::string> paths = read_path_list(flags.null_separated ? '\0' : '\n');
    out.insert(out.erase(list), paths.begin(), paths.end());
    if (out.empty()) throw Error("stdin", "names no adapter", "write one path a line");
  }
  if (out.empty()) throw Error("ADAPTER", "is required", "run 'lora-validate --help'");
  return out;
}

ValidateOptions validate_options(const ValidateFlags& flags) {
  ValidateOptions out;
  static_cast<LoadOptions&>(out) = flags.load.options();
  out.job = shown_job(flags.common.quiet);
  out.engines = flags.engines;
  out.server_options = flags.server_options;
  out.tp = flags.tp;
  out.ep = flags.ep;
  out.max_lora_rank = flags.max_lora_rank;
  out.max_loras = flags.max_loras;
  if (!flags.gpu_memory.empty()) out.gpu_memory = parse_size("--gpu-memory", flags.gpu_memory);
  out.compute_capability = flags.compute_capability;
  out.look_at_values = !flags.no_values;
  out.numeric = flags.numeric;
  out.source = flags.source;
  out.device = flags.device;
  out.forward = !flags.no_forward;
  out.ignore = flags.ignore;
  out.project = project_file(flags);
  out.threads = flags.common.threads;
  out.recursive = flags.recursive;
  out.one_by_one =
      std::find(flags.adapters.begin(), flags.adapters.end(), kFromStdin) != flags.adapters.end();
  out.cache = flags.cache;
  return out;
}

ReportOptions report_options(const ValidateFlags& flags) {
  ReportOptions out;
  out.color = wants_color(flags.common);
  out.blocks = wants_blocks(flags.common);
  out.verbose = flags.verbose;
  out.origin = page_origin(flags.format);
  out.concise = flags.concise;
  out.width = terminal_width(flags.common);
  if (flags.fail_on == "warning") out.fail_on = Severity::warning;
  if (flags.fail_on == "never") out.fail_on = std::nullopt;
  std::error_code ignored;
  out.working_folder = fs::current_path(ignored).string();
  out.project = project_file(flags);
  const char* workspace = std::getenv("GITHUB_WORKSPACE");
  out.root = workspace != nullptr && *workspace != '\0' ? workspace : out.working_folder;
  return out;
}

}  // namespace moelora
