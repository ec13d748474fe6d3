#pragma once

#include <functional>

#include "lib/adapter/joined_modules.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {

// Modules that the base has as one or in parts (lib/adapter/joined_modules.h) as the form of the
// written layout has them, and what both forms have whole, too.
extern const FitStep joined_modules;

inline constexpr std::string_view kJoinedName = "joined-modules",
                                  kJoinedSummary =
                                      "q, k and v, or gate and up, that the server's files have in "
                                      "one, or apart: joined, or cut by the rows of lora_B";

// As the form of the layout has it.
Joining joining_of(const JoinedModule& module, const FitContext& context);

// For an engine's own step of this name.
void join_or_part(FitContext& context, const std::function<Joining(const JoinedModule&)>& wanted);

}  // namespace moelora::fit
