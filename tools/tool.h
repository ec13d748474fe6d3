#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/report_file.h"
#include "tools/progress_bar.h"

namespace CLI {
class App;
class Option;
}  // namespace CLI

namespace moelora {

// Options every tool and subcommand has.
struct CommonOptions {
  std::string output;                  // --output FILE: where data goes instead of stdout
  std::shared_ptr<ReportFile> report;  // that, once it is open
  bool quiet = false, no_color = false;
  int threads = 0;  // 0: all
};

// --version, --verbose that goes with it, and --generate (manual.h).
void add_tool_options(CLI::App& app);

void add_common_options(CLI::App& app, CommonOptions& options);

// An option that takes one of a few words; "unknown value 'jsn' (did you mean 'json'?)" for others.
CLI::Option* add_choice(CLI::App& app, const char* name, std::string& value, const char* help,
                        std::vector<std::string> choices);

// The end of a --help: examples first, two or three command lines one would really type.
std::string examples(std::initializer_list<std::string_view> lines);

// Exit codes (design.md): 0 clean, 1 findings or differences, 2 usage error or the job could not be
// done.
inline constexpr int kClean = 0, kFindings = 1, kFailed = 2;

// Parses the command line, calls `run` and turns every failure into one line on stderr:
// "TOOL: error: WHERE: WHAT", and "hint: ..." where a correction is known, both with this tool's
// names of options. The only place that catches Error.
int run_tool(CLI::App& app, int argc, char** argv, const std::function<int()>& run);

// Opens --output before any work is done, where it was given. Throws Error when it cannot be
// written, is one of `inputs` (a file, or one of the files that are read of a folder), or is where
// the folder `out` will be.
void open_output(CommonOptions& options, const std::vector<std::string>& inputs,
                 const std::string& out = "");

// What in a text is ours and not out of a file. `commands`: its writer has made all but its own
// commands for GitHub's runner harmless.
enum class DataKind : uint8_t { plain, colored, commands };

// Data for the user: to --output FILE (whole or not at all) or to stdout. A closed or full stdout
// is an Error, not a crash. Whatever the text holds, no control character reaches a terminal, and
// where a CI runs the tool (CI, GITHUB_ACTIONS, TF_BUILD or TEAMCITY_VERSION is set) its runner
// finds no command in it; so it is with every line on stderr. REQUIRES open_output.
void print_data(const CommonOptions& options, const std::string& text,
                DataKind kind = DataKind::plain);

// A line for people, on stderr; nothing with --quiet.
void print_note(const CommonOptions& options, const std::string& tool, const std::string& text);

}  // namespace moelora
