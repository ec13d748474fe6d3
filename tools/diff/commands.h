#pragma once

#include <functional>

#include "lib/diff/scoring.h"
#include "tools/tool.h"

namespace moelora {

inline constexpr const char* kDiffTool = "lora-diff";

// A subcommand of lora-diff: where its options are parsed, and what it then does.
struct DiffCommand {
  CLI::App* app;
  std::function<int()> run;
};

DiffCommand add_logprobs(CLI::App& app);
DiffCommand add_predict(CLI::App& app);
DiffCommand add_score(CLI::App& app);
DiffCommand add_weights(CLI::App& app);

// --as and --server-option of a command that scores with one server's model.
void add_server_options(CLI::App& app, ScoreFilesOptions& options, CLI::Option& adapter);

}  // namespace moelora
