#pragma once

#include <string>
#include <vector>

#include "lib/check/finding.h"
#include "lib/check/subject/subject.h"

namespace moelora {

// Which rule a ReadProblem belongs to; each belongs to exactly one.
enum class ProblemKind : uint8_t {
  unreadable,  // FMT021: no folder, no config, a config that is not JSON, a file of another kind
  no_weights,  // FMT002
  pickle,      // FMT003: a pickle that the restricted reader refuses
  shards,      // FMT004: shards that do not fit together, or without their index
  malformed,   // FMT001: the rest of what is wrong with a .safetensors file
};

// Those of one kind, each file's fault once.
std::vector<const ReadProblem*> problems_of(const Subject& subject, ProblemKind kind);

// Whether `problem` is of a file that is not the adapter's: SGLang reads those too.
bool is_stray(const Subject& subject, const ReadProblem& problem);

}  // namespace moelora
