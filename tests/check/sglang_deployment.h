#pragma once

#include "lib/check/run_rules.h"
#include "tests/engine/sglang_oracle.h"

namespace moelora::test {

// An adapter of SGLang's oracle as lora-validate --numeric checks it for the server that it was
// given to. Worked out once for all tests.
const RuleResults& check_for_sglang(const OracleRecord& record);

// GPT-OSS adapters of separate gate and up, for which SGLang computes something else, if anything.
bool has_split_a(const OracleRecord& record);

}  // namespace moelora::test
