#pragma once

#include <string>

#include "lib/check/run_rules.h"
#include "lib/check/subject/subject.h"

namespace moelora {

// Fills Subject::forward: what the adapter computes against what its source does
// (lib/compare/forward_check.h), over the base's own weights where they are at hand and can be
// decoded. Throws nothing: forward_not_run says why there is none.
void run_forward(Subject& adapter, const Subject& source, const ForwardCheckOptions& options);

// What it did, for people: one line an adapter, a skipped check where it was not run.
void add_forward_notes(const std::vector<Subject>& adapters, RuleResults& results);

// "the forward on CPU, float gives deltas that are not the source's: 24 of 72, most in layer 1
// expert 3 down_proj, off by 142 %". REQUIRES differences.
std::string differences_text(const StageReport& report);

}  // namespace moelora
