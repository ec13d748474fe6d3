#pragma once

#include <vector>

#include "lib/check/many/opened_bases.h"
#include "lib/check/validation.h"

namespace moelora {

// What rules make of one deployment.
struct Judged {
  Deployment deployment;
  RuleResults results;  // without what was waived
  std::vector<Waived> waived;
};

// Reads meaning into the files of the adapters, plans what servers do with them, and runs every
// rule. `deployment`: its adapters opened, and `base` given to it. Throws as validate() does.
Judged judge(const ValidateRequest& request, Deployment deployment, OpenedBase& base);

}  // namespace moelora
