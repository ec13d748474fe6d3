#pragma once

#include <vector>

#include "lib/check/rule.h"

namespace moelora {

// The chosen runs of PEFT that are `release` or newer.
std::vector<const EngineRun*> peft_runs_since(const RuleContext& context, std::string_view release);

// A factor of one expert, named by its number.
bool has_numbered_experts(const Subject& subject);

}  // namespace moelora
