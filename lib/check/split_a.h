#pragma once

#include "lib/check/rule.h"

namespace moelora {

// For rules of plans that say "gate and up have an A each": reports the pairs whose two A differ,
// with the event's detail. Where all are equal, the server computes what was trained.
void report_differing_a(RuleContext& context);

}  // namespace moelora
