#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/base/page/grid.h"
#include "lib/check/report.h"

namespace moelora {

// A picture of the model, module by module and layer by layer: what an adapter adapts, and what
// becomes of it on a server.
struct Coverage {
  std::string title;  // "adapters/a on sglang@0.5.23"
  page::Grid grid;
};

// Of each adapter on each server whose plan is known, and of the adapter alone where no server's
// is: at most `most`. `left_out`, where it is not null, is told how many more there are.
std::vector<Coverage> coverages(const Report& report, size_t most, size_t* left_out = nullptr);

}  // namespace moelora
