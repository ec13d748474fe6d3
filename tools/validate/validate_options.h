#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/moelora.h"
#include "tools/load_options.h"
#include "tools/tool.h"

namespace moelora {

// The command line of lora-validate, as typed.
struct ValidateFlags {
  CommonOptions common;
  LoadFlags load;
  std::vector<std::string> adapters, engines, server_options, ignore;
  std::optional<int64_t> tp, ep, max_lora_rank, max_loras;
  std::string fix, gpu_memory, format = "text", fail_on = "error", project, explain, source,
                               device = "auto";
  std::optional<double> compute_capability;
  std::string cache;
  bool verbose = false, no_values = false, list_rules = false, numeric = false, no_forward = false,
       recursive = false, concise = false, null_separated = false;
};

void add_validate_options(CLI::App& app, ValidateFlags& flags);

// The engines with their versions and server options, for --help.
std::string engines_help();

// --project, else the one that is found from the working folder; "" for none.
std::string project_file(const ValidateFlags& flags);

// The adapters that are named: where one of them is "-", those that stdin lists instead of it.
// Throws Error where there is none.
std::vector<std::string> named_adapters(const ValidateFlags& flags);

// What is asked for: the command line, and below it the project file. Throws Error for what cannot
// be meant.
ValidateOptions validate_options(const ValidateFlags& flags);

ReportOptions report_options(const ValidateFlags& flags);

}  // namespace moelora
