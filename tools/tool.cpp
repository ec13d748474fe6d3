#include "tools/tool.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <filesystem>
#include <new>
#include <sstream>
#include <system_error>

#include "lib/base/error.h"
#include "lib/base/nearest.h"
#include "lib/base/utf8.h"
#include "lib/base/version.h"
#include "lib/io/disk/look.h"
#include "lib/io/disk/staging.h"
#include "lib/io/file.h"
#include "lib/io/report_file.h"
#include "lib/numeric/device.h"
#include "tools/embedded_licenses.h"
#include "tools/manual.h"
#include "tools/page_origin.h"
#include "tools/terminal.h"

namespace moelora {
namespace {

std::string harmless(std::string text, DataKind kind) {
  text = printable_lines(std::move(text), kind == DataKind::colored);
  return kind != DataKind::commands && in_ci() ? without_commands(std::move(text)) : text;
}

// A line on stderr. One that is closed or full changes nothing: the exit status says it all.
void print_line(const std::string& before, const std::string& text) {
  hide_progress();
  const std::string line = before + printable(text, kLongestLine) + "\n";
  std::fputs(harmless(line, DataKind::plain).c_str(), stderr);
}

int report(const std::string& tool, const std::string& what, const std::string& hint) {
  print_line(tool + ": error: ", what);
  if (!hint.empty()) print_line("hint: ", hint);
  return kFailed;
}

// CLI11 takes a word that is not a command for an argument, and misses a command.
void check_command(const CLI::App& app, int argc, char** argv) {
  const auto commands = app.get_subcommands([](const CLI::App*) { return true; });
  const std::string_view word = argc > 1 ? argv[1] : "-";
  if (commands.empty() || word.starts_with("-")) return;
  std::vector<std::string_view> names;
  for (const CLI::App* command : commands) {
    if (command->get_name() == word) return;
    names.push_back(command->get_name());
  }
  throw unknown_word({}, "command", word, names);
}

// The command that the line names: the tool itself, or a subcommand.
const CLI::App& command_of(const CLI::App& app) {
  const auto named = app.get_subcommands();
  return named.empty() ? app : *named.front();
}

// "lora-convert adapter".
std::string command_line(const CLI::App& command) {
  const CLI::App* parent = command.get_parent();
  return (parent != nullptr ? parent->get_name() + " " : "") + command.get_name();
}

// What this command calls an option; "" when it has none of that meaning.
std::string flag_of(const CLI::App& command, Option option) {
  std::vector<std::string> flags = {default_flag(option)};
  if (option == Option::engine) flags.insert(flags.end(), {"--for", "--as"});
  for (const std::string& flag : flags)
    if (command.get_option_no_throw(flag) != nullptr) return flag;
  return "";
}

// The first word that no option took.
Error unexpected(const CLI::App& command) {
  const std::string word = command.remaining(true).front();
  if (!word.starts_with("-"))
    return {Location{}, fmt::format("unexpected argument '{}'", printable(word))};
  std::vector<std::string> names;
  for (const CLI::Option* option : command.get_options())
    for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
  const std::vector<std::string_view> known(names.begin(), names.end());
  return unknown_word({}, "option", word.substr(0, word.find('=')), known,
                      fmt::format("run '{} --help'", command_line(command)));
}

CLI::Validator one_of(const std::string& flag, std::vector<std::string> choices) {
  const auto check = [flag, choices](const std::string& word) -> std::string {
    if (std::find(choices.begin(), choices.end(), word) != choices.end()) return "";
    const std::vector<std::string_view> known(choices.begin(), choices.end());
    throw unknown_word({{}, 0, 0, flag, {}}, "value", word, known);
  };
  return {check, fmt::format("{{{}}}", fmt::join(choices, ","))};
}

// "lora-convert 0.1.0 (CUDA no)", "lora-convert 0.1.0 (CUDA on NVIDIA H200, 139.8 GiB, ...)". Looks
// for a card, which takes a moment where there is one.
std::string version_line(const std::string& tool) {
  const FoundDevice found = find_device();
  return fmt::format("{} {} (CUDA {})", tool, version(),
                     found.device == nullptr ? "no" : "on " + found.device->description());
}

std::string licenses() {
  std::string out;
  for (const auto& [name, text] : embedded_licenses()) out += "\n\n" + std::string(text);
  return out;
}

}  // namespace

void add_tool_options(CLI::App& app) {
  // lora-validate has one of its own, which its reports go by.
  CLI::Option* const own = app.get_option_no_throw("--verbose");
  CLI::Option* const verbose = own != nullptr ? own : app.add_flag("--verbose");
  const auto version_text = [&app, verbose] {
    return version_line(app.get_name()) + (verbose->count() > 0 ? licenses() : "");
  };
  CLI::Option* const version_flag = app.set_version_flag("--version", version_text);
  if (own == nullptr)
    verbose->description("With --version: the licenses of what is linked")->needs(version_flag);
  const auto print = [&app](const std::string& what) {
    throw CLI::CallForVersion(what == "man" ? manual_page(app) : completion_script(app, what), 0);
  };
  app.add_option_function<std::string>(
         "--generate", print, "Print the manual page or a completion script of a shell, and exit")
      ->check(one_of("--generate", {"man", "bash", "zsh", "fish"}));
}

void add_common_options(CLI::App& app, CommonOptions& options) {
  app.add_option("-o,--output", options.output, "Write what would go to stdout into FILE")
      ->type_name("FILE");
  app.add_flag("--quiet", options.quiet, "No notes and no progress on stderr");
  app.add_flag("--no-color", options.no_color, "No color, as NO_COLOR does");
  app.add_option("--threads", options.threads, "Threads to work with (default: all)")
      ->type_name("N")
      ->check(CLI::Range(1, 1024));
}

CLI::Option* add_choice(CLI::App& app, const char* name, std::string& value, const char* help,
                        std::vector<std::string> choices) {
  const std::string flag = std::string(name).substr(std::string(name).rfind(',') + 1);
  return app.add_option(name, value, help)->check(one_of(flag, std::move(choices)));
}

std::string examples(std::initializer_list<std::string_view> lines) {
  return fmt::format("Examples:\n  {}", fmt::join(lines, "\n  "));
}

namespace {

// "$UNSET" in a script is an empty word, of which no later message could say what it was meant for.
void check_values(const CLI::App& command) {
  for (const CLI::Option* option : command.get_options())
    for (const std::string& value : option->results())
      if (value.empty() && option->get_expected_min() > 0)
        throw Error(option->get_positional() ? option->get_single_name() : option->get_name(),
                    "is empty");
}

// What --help and --version print is data.
int parse_and_run(CLI::App& app, int argc, char** argv, const std::function<int()>& run) {
  try {
    check_command(app, argc, argv);
    app.parse(argc, argv);
  } catch (const CLI::Success& e) {
    std::ostringstream text;
    app.exit(e, text, text);
    write_stdout(text.str());
    return kClean;
  }
  check_values(command_of(app));
  return run();
}

}  // namespace

int run_tool(CLI::App& app, int argc, char** argv, const std::function<int()>& run) {
  hold_standard_streams();
  install_signal_handlers();
  remember_command(argc, argv, app.get_name());
  const std::string tool = app.get_name();
  try {
    return parse_and_run(app, argc, argv, run);
  } catch (const CLI::ExtrasError&) {
    const Error error = unexpected(command_of(app));
    return report(tool, error.what(), error.hint());
  } catch (const CLI::ParseError& e) {
    return report(tool, e.what(), fmt::format("run '{} --help'", command_line(command_of(app))));
  } catch (const Error& e) {
    const auto spell = [&](Option option) { return flag_of(command_of(app), option); };
    return report(tool, e.message(spell), e.advice().text(spell));
  } catch (const std::bad_alloc&) {
    return report(tool, "out of memory", "");
  } catch (const std::filesystem::filesystem_error& e) {
    return report(tool, fmt::format("{}: {}", e.path1().string(), e.code().message()), "");
  } catch (const std::system_error& e) {  // of the machine: no thread, for one
    return report(tool, e.what(), "");
  } catch (const std::exception& e) {
    return report(tool, fmt::format("internal error: {}", e.what()),
                  "please report this with the command line");
  }
}

namespace {

// Of what is there or not; "" where that cannot be told.
std::filesystem::path real_path(const std::string& path) {
  std::error_code fault;
  const auto out = std::filesystem::weakly_canonical(std::filesystem::absolute(path), fault);
  return fault ? std::filesystem::path() : out.lexically_normal();
}

}  // namespace

void open_output(CommonOptions& options, const std::vector<std::string>& inputs,
                 const std::string& out) {
  if (options.output == "-") options.output.clear();  // stdout, as everywhere
  if (options.output.empty()) return;
  const auto folder = out.empty() ? std::filesystem::path() : real_path(out);
  if (!folder.empty() && real_path(options.output) == folder)
    throw Error(in_file(options.output), "is the output folder too", "choose another --output");
  options.report = std::make_shared<ReportFile>(options.output);
  for (const std::string& input : inputs) {
    options.report->refuse(input);
    if (!is_folder(input)) continue;
    for (const std::string& name :
         ending_in(files_in(input),
                   {"config.json", ".safetensors", ".bin", ".index.json", ".pt", ".pth"}))
      options.report->refuse(join_path(input, name));
  }
}

void print_data(const CommonOptions& options, const std::string& text, DataKind kind) {
  hide_progress();
  const std::string data = harmless(text, kind);
  if (options.report)
    options.report->write(data);
  else
    write_stdout(data);
}

void print_note(const CommonOptions& options, const std::string& tool, const std::string& text) {
  if (!options.quiet) print_line(tool + ": note: ", text);
}

}  // namespace moelora
