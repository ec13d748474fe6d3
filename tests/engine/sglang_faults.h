#pragma once

#include <set>

#include "lib/engine/cause.h"
#include "tests/engine/sglang_oracle.h"

namespace moelora::test {

// What is wrong with an adapter that SGLang serves without a word, as the causes of plan events: by
// the notes of the oracle and its pools. Values aside (NaN, overflow, factors that differ).
using SilentFaults = std::set<const Cause*>;
SilentFaults silent_faults(const OracleRecord& record);

}  // namespace moelora::test
