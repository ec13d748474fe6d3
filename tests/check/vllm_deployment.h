#pragma once

#include "lib/check/run_rules.h"
#include "tests/engine/vllm_oracle.h"

namespace moelora::test {

// An adapter of vLLM's oracle as lora-validate --numeric checks it for the server that loaded it.
// Worked out once for all tests.
const RuleResults& check_for_vllm(const VllmRun& run);
// ... for a server with other options.
RuleResults check_for_vllm(const VllmRun& run, const ServerOptions& options);

}  // namespace moelora::test
