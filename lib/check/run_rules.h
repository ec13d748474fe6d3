#pragma once

#include <string>
#include <vector>

#include "lib/base/progress.h"
#include "lib/check/deployment.h"
#include "lib/check/finding.h"

namespace moelora {

struct Skipped {
  std::string what;  // rule ids, "SGL, VLM: ..." in groups
  std::string why;
};

struct RuleResults {
  std::vector<Finding> findings;  // by adapter, then severity (errors first), then rule id
  std::vector<Skipped> skipped;
  std::vector<std::string> notes;  // what was assumed
  int64_t rules_run = 0;
};

// Runs every rule that applies on every adapter. A rule that throws becomes a finding that says
// what could not be checked; nothing escapes but Cancelled.
RuleResults run_rules(const Deployment& deployment, const JobControl& job = {});

}  // namespace moelora
