#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/base/error.h"
#include "lib/check/subject/subject.h"

namespace moelora {

// What target_modules and target_parameters name, held against the modules that have tensors.
// PEFT's rule: an entry names a path that is it or ends in "." and it; a string is a regular
// expression of whole paths. Experts' factors are called by many names (w1, gate_proj,
// gate_up_proj, experts), so that any of them names them.
struct TargetReading {
  std::vector<std::string> unused_modules;     // entries of target_modules without a tensor
  std::vector<std::string> unused_parameters;  // entries of target_parameters without a tensor
  std::vector<int> unnamed;                    // indices of pairs that no entry names
  bool names_experts = false;                  // some entry names a routed-expert factor
  std::optional<Error> problem;  // target_modules is an expression that cannot be evaluated
};

// REQUIRES a parsed config.
TargetReading read_targets(const Subject& subject);

}  // namespace moelora
