#include "tools/validate/validate_options.h"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/check/project.h"
#include "tools/sizes.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

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

Project project_of(const ValidateOptions& options) {
  std::error_code ignored;
  if (!options.project.empty()) return read_project(options.project);
  return fs::exists(kProjectFile, ignored) ? read_project(kProjectFile) : Project{};
}

std::vector<EngineChoice> choices(const std::vector<std::string>& engines) {
  std::vector<EngineChoice> out;
  for (const std::string& text : engines) {
    const EngineChoice choice = parse_engine(text);
    if (std::none_of(out.begin(), out.end(),
                     [&](const EngineChoice& c) { return c.label() == choice.label(); }))
      out.push_back(choice);
  }
  return out;
}

ServerOptions server_options(const ValidateOptions& options, const Project& project,
                             const std::vector<EngineChoice>& engines) {
  ServerOptions out;
  for (const auto* pairs : {&project.server_options, &options.server_options})
    for (const std::string& pair : *pairs) set_server_option(out, pair, engines);
  if (options.tp) out.tp = *options.tp;
  if (options.ep) out.ep = *options.ep;
  if (options.max_lora_rank) out.max_lora_rank = options.max_lora_rank;
  if (options.max_loras) out.max_loras = options.max_loras;
  if (!options.gpu_memory.empty()) out.gpu_memory = parse_size("--gpu-memory", options.gpu_memory);
  out.compute_capability = options.compute_capability;
  return out;
}

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

// Whether colours can be shown, and are wanted (https://no-color.org).
bool wants_colour(const CommonOptions& options) {
  if (options.no_color || is_set("NO_COLOR") || !options.output.empty()) return false;
  const char* terminal = std::getenv("TERM");
  return isatty(STDOUT_FILENO) == 1 && terminal != nullptr && std::string_view(terminal) != "dumb";
}

size_t terminal_width(const CommonOptions& options) {
  winsize size{};
  const bool known = options.output.empty() && isatty(STDOUT_FILENO) == 1 &&
                     ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
  return known ? size.ws_col : 0;
}

}  // namespace

void add_validate_options(CLI::App& app, ValidateOptions& o) {
  app.add_option("ADAPTER", o.adapters,
                 "Folder with adapter_config.json, or a file in it; several are one deployment")
      ->type_name("");
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
  add_list(app, "--server-option", o.server_options, "Another flag of the server, see below",
           "KEY=VALUE");
  app.add_flag("--no-values", o.no_values, "Look at names and shapes only");
  app.add_flag("--numeric", o.numeric, "Compute too: what servers make of it, and of --source");
  app.add_option("--source", o.source, "The adapter that these were made from")
      ->type_name("ADAPTER")
      ->needs("--numeric");
  app.add_option("--device", o.device, "Where to compute; auto: on a GPU where there is one")
      ->check(CLI::IsMember({"auto", "cpu", "cuda"}))
      ->needs("--numeric");
  app.add_option("--format", o.format, "Form of the report")->check(CLI::IsMember(format_ids()));
  app.add_flag("-v,--verbose", o.verbose, "Every name, and the server's memory");
  app.add_option("--fail-on", o.fail_on, "What makes the exit status 1")
      ->check(CLI::IsMember({"error", "warning", "never"}));
  add_list(app, "--ignore", o.ignore, "A rule not to fail for; a project file gives reasons",
           "ID|NAME")
      ->delimiter(',');
  app.add_option("--project", o.project, "Project file (default: .moelora.json where there is one)")
      ->type_name("FILE");
  app.add_flag("--list-rules", o.list_rules, "Every rule, as text, markdown or json");
  app.add_option("--explain", o.explain, "What a rule says and why, with an example")
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
    for (const ServerOption& option : engine->options)
      out += fmt::format("\n    {}: {}", option.key, option.summary);
  }
  return out;
}

ValidateRequest validate_request(const ValidateOptions& options) {
  if (options.adapters.empty()) throw Error("ADAPTER", "is required", "run 'lora-validate --help'");
  Project project = project_of(options);
  ValidateRequest out;
  out.adapters = options.adapters;
  out.engines = choices(options.engines.empty() ? project.engines : options.engines);
  out.options = server_options(options, project, out.engines);
  out.subject = {options.load.options(), !options.no_values, options.common.threads};
  if (out.subject.load.base.empty()) out.subject.load.base = project.base;
  out.waivers = std::move(project.waivers);
  out.numeric = options.numeric;
  out.source = options.source;
  if (options.device == "cpu") out.device = DeviceChoice::cpu;
  if (options.device == "cuda") out.device = DeviceChoice::cuda;
  out.job = shown_job(options.common.quiet);
  for (const std::string& rule : options.ignore)
    out.waivers.push_back({&rule_named(rule, at_option(Option::ignore)), "no reason given", "",
                           "--ignore " + rule, ""});
  return out;
}

ReportOptions report_options(const ValidateOptions& options) {
  ReportOptions out;
  out.colour = wants_colour(options.common);
  out.verbose = options.verbose;
  out.width = terminal_width(options.common);
  if (options.fail_on == "warning") out.fail_on = Severity::warning;
  if (options.fail_on == "never") out.fail_on = std::nullopt;
  std::error_code ignored;
  out.working_folder = fs::current_path(ignored).string();
  out.root = is_set("GITHUB_WORKSPACE") ? std::getenv("GITHUB_WORKSPACE") : out.working_folder;
  return out;
}

}  // namespace moelora
