#pragma once

#include <functional>

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

}  // namespace moelora
