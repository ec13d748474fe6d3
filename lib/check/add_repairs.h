#pragma once

#include <vector>

#include "lib/base/progress.h"
#include "lib/check/deployment.h"
#include "lib/check/finding.h"

namespace moelora {

// Works out, for findings whose rule says that lora-convert repairs them (Rule::repair),
// the command that does, and makes it their fix. A command is given only where its output was
// planned and judged by the rules (names and shapes, nothing is written): the finding is gone and
// no error is new. What it leaves out is said. Other findings keep the words of their rule, and
// where a server was asked for they say why lora-convert has no repair.
void add_repairs(const Deployment& deployment, std::vector<Finding>& findings,
                 const JobControl& job = {});

}  // namespace moelora
