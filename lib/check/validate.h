#pragma once

#include <string>
#include <vector>

#include "lib/check/rule.h"

namespace moelora {

struct Skipped {
  std::string what;  // rule ids, "SGL, VLM: ..." in groups
  std::string why;
};

struct Judgement {
  std::vector<Finding> findings;  // by adapter, then severity (errors first), then rule id
  std::vector<Skipped> skipped;
  std::vector<std::string> notes;  // what was assumed
  int64_t rules_run = 0;
};

// Fills the plan of every engine run. A plan that cannot be made says why in `not_planned`.
void plan_engines(Deployment& deployment);

// Runs every rule that applies on every adapter. A rule that throws becomes a finding that says
// what could not be checked; nothing escapes.
Judgement validate(const Deployment& deployment);

}  // namespace moelora
