#pragma once

#include <span>
#include <string_view>

#include "lib/diff/score_input.h"

namespace moelora {

// A way to write log-probabilities down. Each is one file formats/NAME.cpp that defines `const
// LogprobFormat NAME_format`; the folder is the registry.
struct LogprobFormat {
  std::string_view id;       // the name of its file, with hyphens
  std::string_view summary;  // for --help and the table of REFERENCE.md
  bool (*claims)(const ScoreInput& input);
  ScoreFile (*read)(const ScoreInput& input);  // REQUIRES claims(); throws Error
};

std::span<const LogprobFormat* const> all_logprob_formats();

}  // namespace moelora
