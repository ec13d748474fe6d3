#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/check/report.h"
#include "lib/check/validate.h"
#include "tools/load_options.h"
#include "tools/tool.h"

namespace moelora {

// The command line of lora-validate, as typed.
struct ValidateOptions {
  CommonOptions common;
  LoadFlags load;
  std::vector<std::string> adapters, engines, server_options, ignore;
  std::optional<int64_t> tp, ep, max_lora_rank, max_loras;
  std::string gpu_memory, format = "text", fail_on = "error", project, explain, source,
                          device = "auto";
  std::optional<double> compute_capability;
  bool verbose = false, no_values = false, list_rules = false, numeric = false;
};

void add_validate_options(CLI::App& app, ValidateOptions& options);

// The engines with their versions and server options, for --help.
std::string engines_help();

// What is to be judged: the command line, and below it the project file (--project, else
// .moelora.json of the working folder where there is one). Throws Error for what cannot be meant.
ValidateRequest validate_request(const ValidateOptions& options);

ReportOptions report_options(const ValidateOptions& options);

}  // namespace moelora
